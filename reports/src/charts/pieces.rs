//! Polylines in pieces: dashes, and what of a line lies inside the picture.

/// Cuts a polyline into dashes; a dash runs around corners.
pub(super) fn dashes(points: &[(i32, i32)], dash: i32, gap: i32) -> Vec<Vec<(i32, i32)>> {
    let (dash, gap) = (f64::from(dash.max(1)), f64::from(gap.max(1)));
    let mut pieces = Vec::new();
    let mut piece: Vec<(i32, i32)> = points.first().copied().into_iter().collect();
    let (mut drawing, mut left) = (true, dash);
    for pair in points.windows(2) {
        let mut at = (f64::from(pair[0].0), f64::from(pair[0].1));
        let end = (f64::from(pair[1].0), f64::from(pair[1].1));
        loop {
            let length = (end.0 - at.0).hypot(end.1 - at.1);
            if length < left {
                left -= length;
                break;
            }
            at.0 += (end.0 - at.0) * left / length;
            at.1 += (end.1 - at.1) * left / length;
            piece.push((at.0.round() as i32, at.1.round() as i32));
            if drawing {
                pieces.push(std::mem::take(&mut piece));
            }
            drawing = !drawing;
            left = if drawing { dash } else { gap };
        }
        if drawing {
            piece.push(pair[1]);
        }
    }
    pieces.push(piece);
    pieces.retain(|p| p.len() > 1);
    pieces
}

/// The parts of a line below `top`, cut where it crosses.
pub(super) fn below(points: &[(f64, f64)], top: f64) -> Vec<Vec<(f64, f64)>> {
    let crossing = |a: (f64, f64), b: (f64, f64)| {
        let share = (top - a.1) / (b.1 - a.1);
        (a.0 + share * (b.0 - a.0), top)
    };
    let mut pieces = Vec::new();
    let mut piece: Vec<(f64, f64)> = Vec::new();
    let mut last: Option<(f64, f64)> = None;
    for point in points.iter().copied() {
        match (last.filter(|p| p.1 > top), point.1 > top) {
            (Some(above), false) => piece = vec![crossing(above, point), point],
            (None, false) => piece.push(point),
            (None, true) => {
                piece.extend(last.map(|inside| crossing(inside, point)));
                pieces.push(std::mem::take(&mut piece));
            }
            (Some(_), true) => {}
        }
        last = Some(point);
    }
    pieces.push(piece);
    pieces.retain(|piece| !piece.is_empty());
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_leaves_the_picture_and_comes_back() {
        let line = [(0.0, 1.0), (1.0, 3.0), (2.0, 5.0), (3.0, 1.0), (4.0, 1.0)];
        assert_eq!(
            below(&line, 2.0),
            [
                vec![(0.0, 1.0), (0.5, 2.0)],
                vec![(2.75, 2.0), (3.0, 1.0), (4.0, 1.0)]
            ]
        );
        assert_eq!(below(&line, 9.0), [line.to_vec()]);
        assert!(below(&line[1..3], 2.0).is_empty());
        // One that begins outside enters at the edge.
        assert_eq!(below(&line[2..4], 3.0), [vec![(2.5, 3.0), (3.0, 1.0)]]);
    }

    #[test]
    fn dashes_run_around_corners() {
        let pieces = dashes(&[(0, 0), (5, 0), (5, 5)], 6, 2);
        assert_eq!(pieces, [vec![(0, 0), (5, 0), (5, 1)], vec![(5, 3), (5, 5)]]);
    }
}
