//! How sure a mean of a few rounds is.

/// Two-sided 95 % quantiles of Student's t distribution with 1 to 30 degrees of freedom (NIST/SEMATECH: "e-Handbook of
/// Statistical Methods", table 1.3.6.7.2).
const QUANTILES: [f64; 30] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120,
    2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
];

/// The quantile that the t distribution comes to.
const NORMAL: f64 = 1.96;

/// The mean of `values`, and the half width of its 95 % confidence interval; no interval of one value alone.
pub(crate) fn mean(values: &[f64]) -> Option<(f64, Option<f64>)> {
    let count = values.len() as f64;
    if values.is_empty() {
        return None;
    }
    let mean = values.iter().sum::<f64>() / count;
    let degrees = values.len().checked_sub(1)?;
    let quantile = degrees.checked_sub(1).map(|place| QUANTILES.get(place).copied().unwrap_or(NORMAL));
    let half = quantile.map(|quantile| {
        let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1.0);
        quantile * (variance / count).sqrt()
    });
    Some((mean, half))
}

/// How many times as much the second of each pair is as the first: the geometric mean, and the bounds of its 95 %
/// confidence interval. Pairs belong together: what disturbed one measurement of a round disturbed the other.
pub(crate) fn ratio(pairs: &[(f64, f64)]) -> Option<(f64, Option<(f64, f64)>)> {
    let logs: Vec<f64> = pairs
        .iter()
        .filter(|(first, second)| *first > 0.0 && *second > 0.0)
        .map(|(first, second)| (second / first).ln())
        .collect();
    let (mean, half) = mean(&logs)?;
    Some((mean.exp(), half.map(|half| ((mean - half).exp(), (mean + half).exp()))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_students() {
        // Mean 3, deviation 1.5811, standard error 0.7071, four degrees of freedom.
        let (mean, half) = mean(&[1.0, 2.0, 3.0, 4.0, 5.0]).unwrap();
        assert!((mean - 3.0).abs() < 1e-12 && (half.unwrap() - 1.963).abs() < 1e-3);
        assert_eq!(super::mean(&[7.0]), Some((7.0, None)));
        assert_eq!(super::mean(&[]), None);
    }

    #[test]
    fn a_ratio_is_of_pairs() {
        let (ratio, bounds) = ratio(&[(10.0, 20.0), (100.0, 200.0)]).unwrap();
        let (low, high) = bounds.unwrap();
        assert!((ratio - 2.0).abs() < 1e-12 && (low - 2.0).abs() < 1e-12 && (high - 2.0).abs() < 1e-12);
        assert_eq!(super::ratio(&[(0.0, 1.0)]), None);
    }
}
