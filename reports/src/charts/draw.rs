//! Drawing: titles, legends, axes, lines, points. The same code for every backend.

use super::chart::{Axis, Chart, Dots, Hover, Lines, Scatter, ScatterPoint, Spec};
use super::pieces::{below, dashes};
use super::theme::{Look, Marker};

use plotters::coord::Shift;
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

type Area<DB> = DrawingArea<DB, Shift>;
type Outcome<T, DB> = Result<T, DrawingAreaErrorKind<<DB as DrawingBackend>::ErrorType>>;

/// Ink and size of the picture.
#[derive(Clone, Copy)]
pub(super) struct Frame {
    pub ink: RGBColor,
    pub scale: f64,
}

impl Frame {
    fn px(self, v: f64) -> i32 {
        (v * self.scale).round() as i32
    }

    fn text(self, size: f64) -> TextStyle<'static> {
        let mut style = TextStyle::from(("sans-serif", size * self.scale).into_font());
        style.color = self.ink.to_backend_color();
        style
    }

    fn width(self, v: f64) -> u32 {
        (v * self.scale).round().max(1.0) as u32
    }
}

/// Draws the whole chart.
pub(super) fn chart<DB: DrawingBackend>(
    root: &Area<DB>,
    chart: &Chart,
    f: Frame,
) -> Outcome<Option<Hover>, DB> {
    let (width, height) = root.dim_in_pixel();
    root.draw_text(&chart.title, &f.text(15.0), (f.px(12.0), f.px(10.0)))?;
    let mut footer = f.text(9.5).pos(Pos::new(HPos::Left, VPos::Bottom));
    footer.color = f.ink.mix(0.75).to_backend_color();
    root.draw_text(
        &chart.footer,
        &footer,
        (f.px(12.0), height as i32 - f.px(5.0)),
    )?;
    let names: Vec<(&str, Look)> = match &chart.spec {
        Spec::Lines(l) => l.series.iter().map(|s| (s.name.as_str(), s.look)).collect(),
        Spec::Scatter(s) if s.named => Vec::new(),
        Spec::Scatter(s) => distinct(s.points.iter().map(|p| (p.name.as_str(), p.look))),
        Spec::Dots(d) => distinct(
            d.groups
                .iter()
                .flat_map(|g| g.1.iter().map(|r| (r.name.as_str(), r.look))),
        ),
    };
    let top = legend(root, &names, f, width)?;
    let (_, rest) = root.split_vertically(top);
    let (body, _) = rest.split_vertically(height as i32 - top - f.px(20.0));
    match &chart.spec {
        Spec::Lines(lines) => draw_lines(&body, lines, f),
        Spec::Dots(dots) => draw_dots(&body, dots, f).map(|()| None),
        Spec::Scatter(scatter) => draw_scatter(&body, scatter, f).map(|()| None),
    }
}

fn distinct<'a>(names: impl Iterator<Item = (&'a str, Look)>) -> Vec<(&'a str, Look)> {
    let mut seen: Vec<(&str, Look)> = Vec::new();
    for n in names {
        if !seen.iter().any(|s| s.0 == n.0) {
            seen.push(n);
        }
    }
    seen
}

/// Marker, stroke and name of every series under the title; returns the height used.
fn legend<DB: DrawingBackend>(
    root: &Area<DB>,
    names: &[(&str, Look)],
    f: Frame,
    width: u32,
) -> Outcome<i32, DB> {
    let style = f.text(12.0).pos(Pos::new(HPos::Left, VPos::Center));
    let (mut x, mut y) = (f.px(12.0), f.px(42.0));
    if names.is_empty() {
        return Ok(f.px(34.0));
    }
    for (name, look) in names {
        let wide = root.estimate_text_size(name, &style)?.0 as i32;
        if x + f.px(36.0) + wide > width as i32 && x > f.px(12.0) {
            (x, y) = (f.px(12.0), y + f.px(18.0));
        }
        let ends = [(x, y), (x + f.px(26.0), y)];
        stroke(root, &ends, *look, f)?;
        marker(root, (x + f.px(13.0), y), *look, f, true)?;
        root.draw_text(name, &style, (x + f.px(31.0), y))?;
        x += f.px(31.0 + 18.0) + wide;
    }
    Ok(y + f.px(12.0))
}

/// A polyline in pixels with the look's dashes.
fn stroke<DB: DrawingBackend>(
    root: &Area<DB>,
    points: &[(i32, i32)],
    look: Look,
    f: Frame,
) -> Outcome<(), DB> {
    let style = look.colour.stroke_width(f.width(1.8));
    match look.dash {
        None => root.draw(&PathElement::new(points.to_vec(), style)),
        Some((dash, gap)) => {
            for piece in dashes(points, f.px(f64::from(dash)), f.px(f64::from(gap))) {
                root.draw(&PathElement::new(piece, style))?;
            }
            Ok(())
        }
    }
}

/// A marker centred at a pixel; hollow if not `filled`.
fn marker<DB: DrawingBackend>(
    root: &Area<DB>,
    (x, y): (i32, i32),
    look: Look,
    f: Frame,
    filled: bool,
) -> Outcome<(), DB> {
    let r = f.px(3.6);
    let style = if filled {
        look.colour.filled()
    } else {
        look.colour.stroke_width(f.width(1.5))
    };
    let shape = |points: Vec<(i32, i32)>| -> Outcome<(), DB> {
        if filled {
            root.draw(&Polygon::new(points, style))
        } else {
            let mut closed = points;
            closed.extend_from_within(..1);
            root.draw(&PathElement::new(closed, style))
        }
    };
    match look.marker {
        Marker::None => Ok(()),
        Marker::Circle => root.draw(&Circle::new((x, y), r, style)),
        Marker::Square => shape(vec![
            (x - r, y - r),
            (x + r, y - r),
            (x + r, y + r),
            (x - r, y + r),
        ]),
        Marker::Triangle => shape(vec![(x, y - r - 1), (x + r + 1, y + r), (x - r - 1, y + r)]),
        Marker::Diamond => shape(vec![
            (x, y - r - 2),
            (x + r + 1, y),
            (x, y + r + 2),
            (x - r - 1, y),
        ]),
        Marker::Cross => {
            let line = look.colour.stroke_width(f.width(1.8));
            root.draw(&PathElement::new(
                vec![(x - r, y - r), (x + r, y + r)],
                line,
            ))?;
            root.draw(&PathElement::new(
                vec![(x - r, y + r), (x + r, y - r)],
                line,
            ))
        }
    }
}

fn draw_lines<DB: DrawingBackend>(
    area: &Area<DB>,
    lines: &Lines,
    f: Frame,
) -> Outcome<Option<Hover>, DB> {
    let (x, y) = (lines.x.low..lines.x.high, lines.y.low..lines.y.high);
    match (lines.x.log, lines.y.log) {
        (true, true) => lines_on(area, lines, f, x.log_scale(), y.log_scale()),
        (true, false) => lines_on(area, lines, f, x.log_scale(), y),
        (false, true) => lines_on(area, lines, f, x, y.log_scale()),
        (false, false) => lines_on(area, lines, f, x, y),
    }
}

fn lines_on<DB, X, Y>(
    area: &Area<DB>,
    lines: &Lines,
    f: Frame,
    x: X,
    y: Y,
) -> Outcome<Option<Hover>, DB>
where
    DB: DrawingBackend,
    X: AsRangedCoord<Value = f64>,
    Y: AsRangedCoord<Value = f64>,
    X::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Y::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let mut plot = ChartBuilder::on(area)
        .margin_right(f.px(28.0))
        .margin_left(f.px(6.0))
        .margin_top(f.px(4.0))
        .x_label_area_size(f.px(40.0))
        .y_label_area_size(f.px(68.0))
        .build_cartesian_2d(x, y)?;
    mesh(&mut plot, lines.x, lines.y, f)?;
    let plane = plot.plotting_area();
    // Pixels relative to the drawing area that the strokes are drawn on.
    let base = area.get_pixel_range();
    let to_pixel = |p: &(f64, f64)| {
        let (x, y) = plane.map_coordinate(p);
        (x - base.0.start, y - base.1.start)
    };
    if let Some((value, name)) = &lines.floor {
        let ends = [
            to_pixel(&(lines.x.low, *value)),
            to_pixel(&(lines.x.high, *value)),
        ];
        let style = f.ink.mix(0.6).stroke_width(f.width(1.0));
        for piece in dashes(&ends, f.px(3.0), f.px(3.0)) {
            area.draw(&PathElement::new(piece, style))?;
        }
        let text = f.text(10.0).pos(Pos::new(HPos::Right, VPos::Bottom));
        area.draw_text(name, &text, (ends[1].0, ends[1].1 - f.px(2.0)))?;
    }
    for s in &lines.series {
        // Markers at a distance: enough to tell the lines apart, few enough not to hide them.
        let every = (s.points.len() / 9).max(1);
        let mut since = every / 2;
        for piece in below(&s.points, lines.y.high) {
            let pixels: Vec<(i32, i32)> = piece.iter().map(to_pixel).collect();
            stroke(area, &pixels, s.look, f)?;
            for (point, pixel) in piece.iter().zip(&pixels) {
                since += 1;
                // An end at the edge is where the line leaves the picture, no measured point.
                if since >= every && point.1 < lines.y.high {
                    marker(area, *pixel, s.look, f, true)?;
                    since = 0;
                }
            }
        }
    }
    let (xs, ys) = plane.get_pixel_range();
    Ok(Some(Hover {
        px: [xs.start, xs.end, ys.start, ys.end],
        x: (lines.x.low, lines.x.high, lines.x.log),
        x_label: lines.x.label.to_owned(),
        y_label: lines.y.label.to_owned(),
        series: lines
            .series
            .iter()
            .map(|s| (s.name.clone(), s.points.iter().map(round).collect()))
            .collect(),
    }))
}

/// Four significant digits are more than a pixel shows, and keep the page small.
fn round(p: &(f64, f64)) -> (f64, f64) {
    let digits = |v: f64| format!("{v:.3e}").parse().unwrap_or(v);
    (digits(p.0), digits(p.1))
}

fn mesh<DB, X, Y>(
    plot: &mut ChartContext<'_, DB, Cartesian2d<X, Y>>,
    x: Axis,
    y: Axis,
    f: Frame,
) -> Outcome<(), DB>
where
    DB: DrawingBackend,
    X: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let whole = |v: f64| v > 0.0 && (v.log10() - v.log10().round()).abs() < 1e-6;
    let x_text = move |v: &f64| {
        if x.log && !whole(*v) {
            String::new()
        } else {
            (x.text)(*v)
        }
    };
    let y_text = move |v: &f64| {
        if y.log && !whole(*v) {
            String::new()
        } else {
            (y.text)(*v)
        }
    };
    plot.configure_mesh()
        .x_desc(x.label)
        .y_desc(y.label)
        .x_labels(if x.log { 10 } else { 7 })
        .y_labels(if y.log { 10 } else { 6 })
        .x_label_formatter(&x_text)
        .y_label_formatter(&y_text)
        .label_style(f.text(11.0))
        .axis_desc_style(f.text(11.5))
        .axis_style(f.ink.mix(0.5).stroke_width(f.width(1.0)))
        .bold_line_style(f.ink.mix(0.16))
        .light_line_style(TRANSPARENT)
        .draw()
}

/// Ticks for a logarithmic ratio axis that includes 1.
fn ratio_axis(values: impl Iterator<Item = f64>) -> (f64, f64, Vec<f64>) {
    let (low, high) = values
        .filter(|v| v.is_finite() && *v > 0.0)
        .fold((1.0_f64, 1.0_f64), |(l, h), v| (l.min(v), h.max(v)));
    let (low, high) = (low.min(0.95) * 0.96, high.max(1.05) * 1.04);
    let candidates: &[f64] = if high / low < 1.7 {
        &[
            0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 1.0, 1.05, 1.1, 1.15, 1.2, 1.3, 1.4, 1.5, 1.6,
        ]
    } else if high / low < 5.0 {
        &[
            0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0,
        ]
    } else {
        &[
            0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0,
        ]
    };
    (
        low,
        high,
        candidates
            .iter()
            .copied()
            .filter(|t| (low..=high).contains(t))
            .collect(),
    )
}

/// `1`, `0.5`, `1.25`: a tick without needless zeros.
fn tick_text(t: f64) -> String {
    let text = format!("{t:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn draw_dots<DB: DrawingBackend>(area: &Area<DB>, dots: &Dots, f: Frame) -> Outcome<(), DB> {
    let (width, height) = area.dim_in_pixel();
    let names = dots.groups.iter().flat_map(|g| g.1.iter().map(|r| &r.name));
    let label = f.text(11.5).pos(Pos::new(HPos::Left, VPos::Center));
    let mut left = f.px(90.0);
    for n in names {
        left = left.max(area.estimate_text_size(n, &label)?.0 as i32 + f.px(34.0));
    }
    // Names of workloads stand above their rows; only very long ones are cut.
    let heading = f.text(12.0).pos(Pos::new(HPos::Left, VPos::Center));
    for (group, _) in &dots.groups {
        let wanted = area.estimate_text_size(group, &heading)?.0 as i32 + f.px(20.0);
        left = left.max(wanted.min(f.px(170.0)));
    }
    let gap = f.px(24.0);
    let panels = dots.panels.len() as i32;
    let wide = (width as i32 - left - f.px(16.0) - gap * (panels - 1)) / panels;
    let (top, bottom) = (f.px(20.0), height as i32 - f.px(20.0));
    let rows: usize = dots.groups.iter().map(|g| g.1.len() + 1).sum();
    let step = f64::from(bottom - top) / rows as f64;
    for (i, head) in dots.panels.iter().enumerate() {
        let x0 = left + i as i32 * (wide + gap);
        let all = dots
            .groups
            .iter()
            .flat_map(|g| &g.1)
            .filter_map(|r| r.ratios[i]);
        let (low, high, ticks) = ratio_axis(all.flat_map(|r| [r.0, r.1, r.2]));
        let place = |v: f64| x0 + (f64::from(wide) * (v / low).ln() / (high / low).ln()) as i32;
        let centre = f.text(11.0).pos(Pos::new(HPos::Center, VPos::Top));
        area.draw_text(head, &f.text(12.0), (x0, f.px(2.0)))?;
        let mut taken = i32::MIN;
        for t in ticks {
            let x = place(t);
            // As thin as the grid of the other charts; the line of equality stands out.
            let style = if t == 1.0 {
                f.ink.mix(0.8).stroke_width(f.width(1.0))
            } else {
                f.ink.mix(0.16).stroke_width(1)
            };
            area.draw(&PathElement::new(vec![(x, top), (x, bottom)], style))?;
            let text = tick_text(t);
            let half = area.estimate_text_size(&text, &centre)?.0 as i32 / 2;
            if x - half > taken {
                area.draw_text(&text, &centre, (x, bottom + f.px(3.0)))?;
                taken = x + half + f.px(6.0);
            }
        }
        let mut row = 0.0;
        for (_, subjects) in &dots.groups {
            row += 1.0;
            for s in subjects {
                let y = top + (step * (row + 0.5)) as i32;
                row += 1.0;
                let Some((median, lower, upper, interval)) = s.ratios[i] else {
                    continue;
                };
                let ends = vec![(place(lower), y), (place(upper), y)];
                area.draw(&PathElement::new(
                    ends,
                    s.look.colour.stroke_width(f.width(2.0)),
                ))?;
                marker(area, (place(median), y), s.look, f, interval)?;
            }
        }
    }
    let mut row = 0.0;
    for (group, subjects) in &dots.groups {
        let y = top + (step * (row + 0.55)) as i32;
        area.draw_text(
            &shorten(area, group, &heading, left - f.px(18.0))?,
            &heading,
            (f.px(12.0), y),
        )?;
        row += 1.0;
        for s in subjects {
            let y = top + (step * (row + 0.5)) as i32;
            area.draw_text(&s.name, &label, (f.px(24.0), y))?;
            row += 1.0;
        }
    }
    Ok(())
}

/// `text`, cut with an ellipsis to `room` pixels.
fn shorten<DB: DrawingBackend>(
    area: &Area<DB>,
    text: &str,
    style: &TextStyle<'_>,
    room: i32,
) -> Outcome<String, DB> {
    let mut short = text.to_owned();
    while area.estimate_text_size(&short, style)?.0 as i32 > room && short.chars().count() > 4 {
        let keep = short.chars().count() - 2;
        short = short.chars().take(keep).collect::<String>() + "…";
    }
    Ok(short)
}

fn draw_scatter<DB: DrawingBackend>(
    area: &Area<DB>,
    scatter: &Scatter,
    f: Frame,
) -> Outcome<(), DB> {
    let (width, height) = area.dim_in_pixel();
    let (x0, x1) = (f.px(64.0), width as i32 - f.px(28.0));
    let (y0, y1) = (f.px(8.0), height as i32 - f.px(42.0));
    let xs = scatter.points.iter().flat_map(|p| [p.x.0, p.x.1, p.x.2]);
    let ys = scatter.points.iter().flat_map(|p| [p.y.0, p.y.1, p.y.2]);
    let (x_low, x_high, x_ticks) = ratio_axis(xs);
    let (y_low, y_high, y_ticks) = ratio_axis(ys);
    let at_x = |v: f64| x0 + (f64::from(x1 - x0) * (v / x_low).ln() / (x_high / x_low).ln()) as i32;
    let at_y = |v: f64| y1 - (f64::from(y1 - y0) * (v / y_low).ln() / (y_high / y_low).ln()) as i32;
    let grid = |one: bool| {
        let width = if one { f.width(1.0) } else { 1 };
        f.ink.mix(if one { 0.8 } else { 0.16 }).stroke_width(width)
    };
    let (below, beside) = (
        Pos::new(HPos::Center, VPos::Top),
        Pos::new(HPos::Right, VPos::Center),
    );
    for t in x_ticks {
        area.draw(&PathElement::new(
            vec![(at_x(t), y0), (at_x(t), y1)],
            grid(t == 1.0),
        ))?;
        area.draw_text(
            &tick_text(t),
            &f.text(11.0).pos(below),
            (at_x(t), y1 + f.px(4.0)),
        )?;
    }
    for t in y_ticks {
        area.draw(&PathElement::new(
            vec![(x0, at_y(t)), (x1, at_y(t))],
            grid(t == 1.0),
        ))?;
        area.draw_text(
            &tick_text(t),
            &f.text(11.0).pos(beside),
            (x0 - f.px(5.0), at_y(t)),
        )?;
    }
    let below_centre = ((x0 + x1) / 2, y1 + f.px(20.0));
    area.draw_text(
        &format!(
            "{} / {}'s   (less is better)",
            scatter.across, scatter.baseline
        ),
        &f.text(11.5).pos(below),
        below_centre,
    )?;
    let mut turned = f.text(11.5).pos(Pos::new(HPos::Center, VPos::Top));
    turned.font = turned.font.transform(FontTransform::Rotate270);
    area.draw_text(
        &format!("peak memory / {}'s", scatter.baseline),
        &turned,
        (f.px(8.0), (y0 + y1) / 2),
    )?;
    for p in &scatter.points {
        let thin = p.look.colour.mix(0.7).stroke_width(f.width(1.2));
        let across = vec![(at_x(p.x.1), at_y(p.y.0)), (at_x(p.x.2), at_y(p.y.0))];
        let up = vec![(at_x(p.x.0), at_y(p.y.1)), (at_x(p.x.0), at_y(p.y.2))];
        area.draw(&PathElement::new(across, thin))?;
        area.draw(&PathElement::new(up, thin))?;
        marker(area, (at_x(p.x.0), at_y(p.y.0)), p.look, f, true)?;
    }
    if scatter.named {
        name_points(area, scatter, f, (x0, x1), |p| (at_x(p.x.0), at_y(p.y.0)))?;
    }
    Ok(())
}

/// Names beside points, moved down where they would cover one another.
fn name_points<DB: DrawingBackend>(
    area: &Area<DB>,
    scatter: &Scatter,
    f: Frame,
    (left, right): (i32, i32),
    place: impl Fn(&ScatterPoint) -> (i32, i32),
) -> Outcome<(), DB> {
    let mut boxes: Vec<(i32, i32, i32, i32)> = Vec::new();
    let style = f.text(12.0).pos(Pos::new(HPos::Left, VPos::Center));
    let high = f.px(15.0);
    for p in &scatter.points {
        let (x, mut y) = place(p);
        let wide = area.estimate_text_size(&p.name, &style)?.0 as i32;
        let x = if x + f.px(9.0) + wide > right {
            (x - f.px(9.0) - wide).max(left)
        } else {
            x + f.px(9.0)
        };
        y -= f.px(9.0);
        while let Some(hit) = boxes
            .iter()
            .find(|b| x < b.2 && x + wide > b.0 && y < b.3 && y + high > b.1)
        {
            y = hit.3;
        }
        boxes.push((x, y, x + wide, y + high));
        area.draw_text(&p.name, &style, (x, y))?;
    }
    Ok(())
}
