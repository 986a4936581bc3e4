//! Item response theory: what answers say about an ability, and which question would say most.
//!
//! The two-parameter logistic model (Birnbaum: "Some latent trait models", in Lord and Novick: "Statistical Theories of
//! Mental Test Scores", 1968, chapter 17): a person of ability θ answers an item well with probability
//! `P(θ) = 1 / (1 + exp(−a (θ − b)))`, where `a` is the item's discrimination and `b` its location. Abilities are
//! standard normal in the population.
//!
//! Answers here have a score from 0 to 1, not right or wrong. A score `s` counts as that share of a right answer:
//! its likelihood is `P^s (1 − P)^(1 − s)`, the quasi-likelihood of a fractional response (Papke and Wooldridge:
//! "Econometric methods for fractional response variables", 1996).

/// Quadrature points: a step of a tenth of a standard deviation from −4 to 4, beyond which nobody is.
const POINTS: i32 = 81;

/// An ability is known well enough when its standard error is not above this: two thirds of the answers' worth of an
/// interview of ten questions, and half of what is unknown about a stranger.
pub(crate) const ENOUGH: f64 = 0.5;

/// The parameters of an item.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Item {
    /// Discrimination `a`, above 0.
    pub(crate) discrimination: f64,
    /// Location `b`, on the scale of abilities.
    pub(crate) location: f64,
}

/// What is known about an ability.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Estimate {
    /// The mean of what it may be.
    pub(crate) ability: f64,
    /// The standard deviation of what it may be.
    pub(crate) standard_error: f64,
}

/// What is known before the first answer: the population.
pub(crate) const STRANGER: Estimate = Estimate { ability: 0.0, standard_error: 1.0 };

impl Item {
    /// The probability of a good answer.
    pub(crate) fn probability(self, ability: f64) -> f64 {
        1.0 / (1.0 + (-self.discrimination * (ability - self.location)).exp())
    }

    /// Fisher's information about the ability in one answer: `a² P (1 − P)` (Birnbaum 1968, section 20.2).
    pub(crate) fn information(self, ability: f64) -> f64 {
        let probability = self.probability(ability);
        self.discrimination * self.discrimination * probability * (1.0 - probability)
    }
}

/// The expected a posteriori estimate from answers, each with its score from 0 to 1 (Bock and Mislevy: "Adaptive EAP
/// estimation of ability in a microcomputer environment", Applied Psychological Measurement 6, 1982).
///
/// Unlike the likeliest value, it exists after answers that are all good or all bad.
pub(crate) fn estimate(answers: impl Iterator<Item = (Item, f64)> + Clone) -> Estimate {
    let points = || (0..POINTS).map(|point| f64::from(point - POINTS / 2) / 10.0);
    // In logarithms, since a product of hundreds of likelihoods would vanish.
    let logs: Vec<f64> = points()
        .map(|ability| {
            let likelihood: f64 = answers
                .clone()
                .map(|(item, score)| {
                    let logit = item.discrimination * (ability - item.location);
                    // ln P = −ln(1 + e^−x) and ln(1 − P) = ln P − x.
                    -softplus(-logit) - (1.0 - score) * logit
                })
                .sum();
            likelihood - ability * ability / 2.0
        })
        .collect();
    let highest = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = logs.iter().map(|log| (log - highest).exp()).collect();
    let total: f64 = weights.iter().sum();
    let mean = points().zip(&weights).map(|(ability, weight)| ability * weight).sum::<f64>() / total;
    let variance =
        points().zip(&weights).map(|(ability, weight)| (ability - mean).powi(2) * weight).sum::<f64>() / total;
    Estimate { ability: mean, standard_error: variance.sqrt() }
}

/// `ln(1 + e^x)` without overflow.
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn item() -> impl Strategy<Value = Item> {
        (0.2_f64..3.0, -3.0_f64..3.0).prop_map(|(discrimination, location)| Item { discrimination, location })
    }

    fn answers() -> impl Strategy<Value = Vec<(Item, f64)>> {
        prop::collection::vec((item(), 0.0_f64..=1.0), 0..30)
    }

    fn of(answers: &[(Item, f64)]) -> Estimate {
        estimate(answers.iter().copied())
    }

    #[test]
    fn known_values() {
        let item = Item { discrimination: 1.0, location: 0.0 };
        assert!((item.probability(0.0) - 0.5).abs() < 1e-12);
        assert!((item.information(0.0) - 0.25).abs() < 1e-12);
        let nothing = of(&[]);
        // Cut at four standard deviations, the normal distribution has lost next to nothing.
        assert!(nothing.ability.abs() < 1e-12 && (nothing.standard_error - 1.0).abs() < 2e-3, "{nothing:?}");
        // By numeric integration of the normal density times the logistic function: mean 0.4132, deviation 0.9106.
        let one = of(&[(item, 1.0)]);
        assert!((one.ability - 0.4132).abs() < 1e-3 && (one.standard_error - 0.9106).abs() < 2e-3, "{one:?}");
    }

    #[test]
    fn an_ability_is_recovered() {
        for ability in [-1.5, -0.5, 0.0, 1.0, 2.0] {
            let answers: Vec<(Item, f64)> = (0..200)
                .map(|number| Item { discrimination: 1.5, location: f64::from(number % 41 - 20) / 8.0 })
                .map(|item| (item, item.probability(ability)))
                .collect();
            let found = of(&answers);
            assert!((found.ability - ability).abs() < 0.15 && found.standard_error < 0.2, "{ability}: {found:?}");
        }
    }

    proptest! {
        #[test]
        fn estimates_are_finite_and_within_the_scale(answers in answers()) {
            let found = of(&answers);
            prop_assert!(found.ability.abs() <= 4.0 && found.standard_error > 0.0 && found.standard_error < 1.5);
        }

        #[test]
        fn a_better_answer_never_lowers_the_estimate(
            answers in answers(), item in item(), score in 0.0_f64..=1.0, better in 0.0_f64..=1.0,
        ) {
            let with = |score: f64| {
                let mut answers = answers.clone();
                answers.push((item, score));
                of(&answers).ability
            };
            let (low, high) = (score.min(better), score.max(better));
            prop_assert!(with(low) <= with(high) + 1e-9);
        }

        #[test]
        fn the_order_of_answers_does_not_matter(answers in answers()) {
            let mut turned = answers.clone();
            turned.reverse();
            let (one, other) = (of(&answers), of(&turned));
            prop_assert!((one.ability - other.ability).abs() < 1e-9);
        }

        #[test]
        fn information_is_most_where_the_item_lies(item in item(), away in 0.1_f64..4.0) {
            prop_assert!(item.information(item.location) > item.information(item.location + away));
            prop_assert!(item.information(item.location) > item.information(item.location - away));
        }
    }
}
