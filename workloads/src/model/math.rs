//! Logarithm, exponential and normal quantile from exactly rounded operations only.
//!
//! The C library's versions differ in the last bit from machine to machine, and one bit moves a size. These use
//! `+ - * /` and bit patterns, which IEEE 754 fixes; about 1e-12 is accurate enough for tables of sizes.

/// Natural logarithm of a positive, finite, normal number.
pub fn ln(value: f64) -> f64 {
    let bits = value.to_bits();
    let mut exponent = (bits >> 52) as i64 - 1023;
    let mut mantissa = f64::from_bits(bits & ((1 << 52) - 1) | 1023 << 52);
    if mantissa > std::f64::consts::SQRT_2 {
        mantissa /= 2.0;
        exponent += 1;
    }
    // ln m = 2 artanh((m - 1) / (m + 1)), the argument is at most 0.172.
    let ratio = (mantissa - 1.0) / (mantissa + 1.0);
    let square = ratio * ratio;
    let mut term = ratio;
    let mut sum = 0.0;
    for odd in 0..12 {
        sum += term / f64::from(2 * odd + 1);
        term *= square;
    }
    2.0 * sum + exponent as f64 * std::f64::consts::LN_2
}

/// e to the power of `value`; 0 and infinity outside of what a double holds.
pub fn exp(value: f64) -> f64 {
    if value < -700.0 {
        return 0.0;
    }
    if value > 700.0 {
        return f64::INFINITY;
    }
    // Round half away from zero by truncation: `round` is exact, but this needs no library call at all.
    let halves = value / std::f64::consts::LN_2;
    let power = (halves + if halves < 0.0 { -0.5 } else { 0.5 }) as i64;
    let rest = value - power as f64 * std::f64::consts::LN_2;
    let mut term = 1.0;
    let mut sum = 1.0;
    for step in 1..20 {
        term *= rest / f64::from(step);
        sum += term;
    }
    sum * f64::from_bits(((power + 1023) as u64) << 52)
}

/// The standard normal quantile of `p` in (0, 0.5], by Newton's steps from `start`, which must not be below it: there
/// the distribution function is convex, so no step passes the quantile.
fn normal_quantile_from(p: f64, start: f64) -> f64 {
    let mut x = start;
    for _ in 0..40 {
        let step = (normal_cdf(x) - p) / normal_density(x);
        x -= step;
        if step < 1e-13 {
            break;
        }
    }
    x
}

/// Standard normal quantiles of `0.25/n, 1/n, 2/n … (n - 0.25)/n` for an even `n`: the ends stand for the middle of the
/// outermost half step, where the quantile is finite.
pub fn normal_quantiles(n: usize) -> Vec<f64> {
    let mut table = vec![0.0; n + 1];
    let mut x = 0.0;
    for step in (0..n / 2).rev() {
        x = normal_quantile_from(inner(step, n), x);
        table[step] = x;
        table[n - step] = -x;
    }
    table
}

/// The share that step `step` of `n` stands for.
pub fn inner(step: usize, n: usize) -> f64 {
    (step as f64).clamp(0.25, n as f64 - 0.25) / n as f64
}

fn normal_density(x: f64) -> f64 {
    const INV_SQRT_TAU: f64 = 0.398_942_280_401_432_7;
    INV_SQRT_TAU * exp(-x * x / 2.0)
}

/// The standard normal distribution function: a power series near 0, a continued fraction in the tails.
fn normal_cdf(x: f64) -> f64 {
    let density = normal_density(x);
    if x.abs() < 3.5 {
        let (mut term, mut sum, mut odd) = (x, x, 1.0);
        for _ in 0..80 {
            odd += 2.0;
            term *= x * x / odd;
            sum += term;
        }
        return 0.5 + density * sum;
    }
    let far = x.abs();
    let mut fraction = far;
    for step in (1..60).rev() {
        fraction = far + f64::from(step) / fraction;
    }
    let tail = density / fraction;
    if x < 0.0 { tail } else { 1.0 - tail }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_library() {
        for step in 1..2000 {
            let value = f64::from(step) * 0.37;
            assert!((ln(value) - value.ln()).abs() < 1e-12, "ln {value}");
            let small = (value - 300.0) / 10.0;
            assert!(
                (exp(small) / small.exp() - 1.0).abs() < 1e-12,
                "exp {small}"
            );
        }
        assert!((ln(1e-9) - 1e-9f64.ln()).abs() < 1e-12);
        assert_eq!(exp(-800.0), 0.0);
    }

    #[test]
    fn quantiles_are_the_published_ones() {
        let table = normal_quantiles(10_000);
        for (step, x) in [
            (5_000, 0.0),
            (9_750, 1.959_963_984_540),
            (1, -3.719_016_485_456),
            (1_000, -1.281_551_565_545),
        ] {
            assert!((table[step] - x).abs() < 1e-11, "{step}: {}", table[step]);
        }
        assert!((table[0] + 4.055_626_981).abs() < 1e-8, "{}", table[0]);
        assert!(table.is_sorted());
    }
}
