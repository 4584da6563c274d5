//! How far live sets go up and down between the parts' peaks, which courses do not tell.

/// Levels at the calls of a part, as sums: the line that they are held against is known only when the part is over.
#[derive(Clone, Copy, Default)]
pub(super) struct Wave {
    count: f64,
    /// Of times (0 to 1) and of their squares, of levels and of theirs, and of the products of both.
    times: f64,
    times2: f64,
    levels: f64,
    levels2: f64,
    products: f64,
}

impl Wave {
    /// A level when so much of the part is over.
    #[inline]
    pub fn add(&mut self, time: f64, level: f64) {
        self.count += 1.0;
        self.times += time;
        self.times2 += time * time;
        self.levels += level;
        self.levels2 += level * level;
        self.products += time * level;
    }

    /// Number of levels, sum of their distances from the line that leads `from` one level `to` another, and sum of the squares.
    fn off_line(&self, from: f64, to: f64) -> [f64; 3] {
        let (a, b) = (from, to - from);
        let sum = self.levels - a * self.count - b * self.times;
        let squares = self.levels2 + a * a * self.count + b * b * self.times2
            - 2.0 * a * self.levels
            - 2.0 * b * self.products
            + 2.0 * a * b * self.times;
        [self.count, sum, squares.max(0.0)]
    }
}

/// How many blocks above and below the course a live set that wanders evenly must go to be as far from it, on average and by the
/// standard deviation, as these waves. `course` has the level at the end of each part; before the first it is 0.
pub(super) fn band(waves: &[Wave], course: &[f64]) -> (f64, f64) {
    let mut sums = [0.0; 3];
    let mut before = 0.0;
    for (wave, &level) in waves.iter().zip(course) {
        for (sum, part) in sums.iter_mut().zip(wave.off_line(before, level)) {
            *sum += part;
        }
        before = level;
    }
    let [count, sum, squares] = sums;
    let mean = sum / count.max(1.0);
    let variance = (squares / count.max(1.0) - mean * mean).max(0.0);
    let half = (3.0 * variance).sqrt();
    ((half + mean).max(0.0), (half - mean).max(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(level: impl Fn(f64) -> f64) -> Wave {
        let mut wave = Wave::default();
        for step in 0..1000 {
            let time = f64::from(step) / 1000.0;
            wave.add(time, level(time));
        }
        wave
    }

    #[test]
    fn what_the_course_says_is_no_wave() {
        let waves = [of(|time| 500.0 * time), of(|time| 500.0 - 200.0 * time)];
        let (above, below) = band(&waves, &[500.0, 300.0]);
        assert!(above < 0.1 && below < 0.1, "{above} {below}");
    }

    #[test]
    fn a_saw_below_the_course_is_a_band_below_it() {
        // Ten times from 100 down to 0; the peaks are at 100.
        let saw = of(|time| 100.0 * (1.0 - (10.0 * time).fract()));
        let (above, below) = band(&[Wave::default(), saw], &[100.0, 100.0]);
        assert!(
            above < 1.0 && (99.0..101.0).contains(&below),
            "{above} {below}"
        );
        // As much above it as below.
        let (above, below) = band(&[Wave::default(), saw], &[50.0, 50.0]);
        assert!(
            (49.0..51.0).contains(&above) && (49.0..51.0).contains(&below),
            "{above} {below}"
        );
    }
}
