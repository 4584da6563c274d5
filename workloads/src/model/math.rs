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

/// The standard normal quantile of `p` in (0, 1), by bisection on the distribution function.
pub fn normal_quantile(p: f64) -> f64 {
    let (mut low, mut high) = (-8.5, 8.5);
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        if normal_cdf(middle) < p {
            low = middle;
        } else {
            high = middle;
        }
    }
    (low + high) / 2.0
}

/// The standard normal distribution function: a power series near 0, a continued fraction in the tails.
fn normal_cdf(x: f64) -> f64 {
    const INV_SQRT_TAU: f64 = 0.398_942_280_401_432_7;
    let density = INV_SQRT_TAU * exp(-x * x / 2.0);
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
        for (p, x) in [
            (0.5, 0.0),
            (0.975, 1.959_963_984_540),
            (0.000_1, -3.719_016_485_456),
        ] {
            assert!(
                (normal_quantile(p) - x).abs() < 1e-9,
                "{p}: {}",
                normal_quantile(p)
            );
        }
        assert!((normal_quantile(0.999_999_9) - 5.199_337_582).abs() < 1e-6);
    }
}
