//! What the comparisons of one release add up to, with the noise that stable makes by itself taken out.

use std::collections::{BTreeMap, VecDeque};

use crate::judge::{Counts, Interval, Rate, difference_interval};
use crate::shadow::CopyResult;
use crate::shadow::compare::Difference;

/// The most places that are counted. A service whose answers differ in more has names in them that are data.
const MAX_PLACES: usize = 200;

/// The latest requests that are kept for looking up.
const MAX_SAMPLES: usize = 20;

/// How sure a difference is: 99 %, at every place, however often one looks.
const DOUBT: f64 = 0.01;

/// What was found at one place of the answers.
#[derive(Debug, Clone, Default)]
struct Seen {
    canary: u64,
    noise: u64,
    /// What the canary's latest difference here was.
    detail: String,
}

/// What was found in the copies of one release.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// Answers of the canary that were compared with stable's.
    compared: u64,
    /// Answers of stable that were compared with stable's.
    compared_noise: u64,
    places: BTreeMap<String, Seen>,
    /// Differences at places that there was no room for.
    left_out: u64,
    samples: VecDeque<Sample>,
}

/// A request that the canary answered otherwise, for looking it up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// What it is called in logs.
    pub request_id: String,
    /// When it was answered, in RFC 3339.
    pub at: String,
    /// Stable's status.
    pub stable_status: u16,
    /// The canary's status.
    pub canary_status: u16,
    /// The first difference that is not noise.
    pub place: String,
    /// What it is.
    pub detail: String,
    /// How many more there are.
    pub others: usize,
}

/// What the differences at one place mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// The canary differs from stable more often than stable does from itself.
    Different,
    /// Stable was not seen to differ from itself here, but too few requests were compared to be sure.
    Unclear,
    /// Stable differs from itself here, and the canary is not shown to do so more often.
    Noise,
}

impl Verdict {
    /// As written in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Different => "different",
            Self::Unclear => "unclear",
            Self::Noise => "noise",
        }
    }
}

/// What was found at one place of the answers.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// The place: see [`Difference::place`].
    pub place: String,
    /// What the latest difference was.
    pub detail: String,
    /// What it means.
    pub verdict: Verdict,
    /// How many of the canary's answers differed here.
    pub canary: u64,
    /// How many of stable's second answers did.
    pub noise: u64,
    /// How much more often the canary differs than stable does from itself, in shares, at least and at most.
    pub excess: (f64, f64),
}

/// What was found in the copies of one release.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    /// How the requests that were to be copied ended.
    pub results: Vec<(CopyResult, u64)>,
    /// Answers of the canary that were compared.
    pub compared: u64,
    /// Second answers of stable that were compared.
    pub compared_noise: u64,
    /// What was found, what is surest and most frequent first.
    pub findings: Vec<Finding>,
    /// Differences at places that there was no room for.
    pub left_out: u64,
    /// The latest requests that the canary answered otherwise, newest first.
    pub samples: Vec<Sample>,
}

impl Findings {
    /// Notes an answer of the canary, and what stable answered to the same request once more. Place and detail of `sample`
    /// are filled in here.
    pub(crate) fn note(
        &mut self,
        differences: &[Difference],
        noise: Option<&[Difference]>,
        sample: Sample,
    ) -> CopyResult {
        if let Some(noise) = noise {
            self.compared_noise += 1;
            for difference in noise {
                if let Some(seen) = self.place(&difference.place) {
                    seen.noise += 1;
                }
            }
        }
        self.compared += 1;
        for difference in differences {
            if let Some(seen) = self.place(&difference.place) {
                seen.canary += 1;
                seen.detail.clone_from(&difference.detail);
            }
        }
        if differences.is_empty() {
            return CopyResult::Same;
        }
        let mut telling = differences.iter().filter(|difference| {
            let seen = self.places.get(&difference.place);
            // Only where stable differs from itself does it take numbers to tell.
            seen.is_none_or(|seen| seen.noise == 0 || self.weigh(seen).0 != Verdict::Noise)
        });
        let Some(first) = telling.next() else { return CopyResult::Noise };
        let others = telling.count();
        if self.samples.len() >= MAX_SAMPLES {
            self.samples.pop_back();
        }
        let (place, detail) = (first.place.clone(), first.detail.clone());
        self.samples.push_front(Sample { place, detail, others, ..sample });
        CopyResult::Different
    }

    /// Makes a report of all that was found at places that are `shown`.
    pub(crate) fn report(&self, results: Vec<(CopyResult, u64)>, shown: impl Fn(&str) -> bool) -> Report {
        let shown_places = self.places.iter().filter(|(place, _)| shown(place));
        let mut findings: Vec<_> = shown_places
            .map(|(place, seen)| {
                let (verdict, Interval { low, high }) = self.weigh(seen);
                Finding {
                    place: place.clone(),
                    detail: seen.detail.clone(),
                    verdict,
                    canary: seen.canary,
                    noise: seen.noise,
                    excess: (low, high),
                }
            })
            .collect();
        findings.sort_by(|a, b| (a.verdict, b.canary, &a.place).cmp(&(b.verdict, a.canary, &b.place)));
        Report {
            results,
            compared: self.compared,
            compared_noise: self.compared_noise,
            findings,
            left_out: self.left_out,
            samples: self.samples.iter().filter(|sample| shown(&sample.place)).cloned().collect(),
        }
    }

    fn place(&mut self, place: &str) -> Option<&mut Seen> {
        if !self.places.contains_key(place) {
            if self.places.len() >= MAX_PLACES {
                self.left_out += 1;
                return None;
            }
            self.places.insert(place.to_owned(), Seen::default());
        }
        self.places.get_mut(place)
    }

    /// What is seen at a place means that the canary differs there if its rate is above that of the noise.
    fn weigh(&self, seen: &Seen) -> (Verdict, Interval) {
        let stable = Counts { requests: self.compared_noise, failures: seen.noise };
        let canary = Counts { requests: self.compared, failures: seen.canary };
        let excess = difference_interval(stable, canary, Rate::from_share(DOUBT).unwrap_or_default());
        let verdict = if excess.low > 0.0 {
            Verdict::Different
        } else if seen.noise > 0 {
            Verdict::Noise
        } else {
            Verdict::Unclear
        };
        (verdict, excess)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn difference(place: &str) -> Difference {
        Difference { place: place.to_owned(), detail: "another value".to_owned() }
    }

    fn sample(number: u64) -> Sample {
        Sample {
            request_id: number.to_string(),
            at: String::new(),
            stable_status: 200,
            canary_status: 200,
            place: String::new(),
            detail: String::new(),
            others: 0,
        }
    }

    fn verdicts(findings: &Findings) -> Vec<(String, Verdict)> {
        let report = findings.report(Vec::new(), |_| true);
        report.findings.into_iter().map(|finding| (finding.place, finding.verdict)).collect()
    }

    #[test]
    fn what_stable_does_by_itself_is_noise() {
        let mut findings = Findings::default();
        let both = [difference("/at"), difference("/total")];
        let mut results = Vec::new();
        for number in 0..400 {
            let noise = [difference("/at")];
            let differences = if number % 2 == 0 { &both[..] } else { &both[..1] };
            results.push(findings.note(differences, (number % 5 == 0).then_some(&noise[..]), sample(number)));
        }
        assert_eq!(results.iter().filter(|result| **result == CopyResult::Different).count(), 200);
        assert_eq!(results.iter().filter(|result| **result == CopyResult::Noise).count(), 200);
        assert_eq!(
            verdicts(&findings),
            [("/total".to_owned(), Verdict::Different), ("/at".to_owned(), Verdict::Noise)]
        );
        let report = findings.report(Vec::new(), |_| true);
        assert_eq!((report.compared, report.compared_noise, report.samples.len()), (400, 80, MAX_SAMPLES));
        assert!(report.samples.iter().all(|sample| sample.place == "/total"));
        assert_eq!(report.samples[0].request_id, "398");
        assert!(findings.report(Vec::new(), |place| place != "/total").samples.is_empty());
    }

    #[test]
    fn little_traffic_and_no_noise_measured_are_unclear() {
        let mut findings = Findings::default();
        findings.note(&[difference("/a")], Some(&[]), sample(0));
        assert_eq!(verdicts(&findings), [("/a".to_owned(), Verdict::Unclear)]);
        let mut findings = Findings::default();
        for number in 0..1000 {
            findings.note(&[difference("/a")], None, sample(number));
        }
        assert_eq!(verdicts(&findings), [("/a".to_owned(), Verdict::Unclear)]);
    }

    #[test]
    fn there_is_room_for_so_many_places() {
        let mut findings = Findings::default();
        for number in 0..300 {
            findings.note(&[difference(&format!("/{number}"))], None, sample(number));
        }
        let report = findings.report(Vec::new(), |_| true);
        assert_eq!((report.findings.len(), report.left_out), (MAX_PLACES, 100));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn a_canary_that_is_as_noisy_as_stable_does_not_differ(
            own in prop::collection::vec(any::<bool>(), 300),
            others in prop::collection::vec(any::<bool>(), 300),
        ) {
            // Both differ by the same coin: no look in between may take it for a difference.
            let mut findings = Findings::default();
            let at = [difference("/at")];
            for (number, (own, other)) in own.into_iter().zip(others).enumerate() {
                let noise = if own { &at[..] } else { &[] };
                let found = if other { &at[..] } else { &[] };
                findings.note(found, Some(noise), sample(number as u64));
                if number % 10 != 0 {
                    continue;
                }
                let different = verdicts(&findings).iter().any(|(_, verdict)| *verdict == Verdict::Different);
                prop_assert!(!different, "after {} requests", number + 1);
            }
        }

        #[test]
        fn a_canary_that_always_differs_is_found(rate in 1_usize..=100) {
            let mut findings = Findings::default();
            for number in 0..100 * rate {
                // Stable is asked again once in `rate`.
                let noise = (number % rate == 0).then_some(&[][..]);
                findings.note(&[difference("/a")], noise, sample(number as u64));
            }
            prop_assert_eq!(verdicts(&findings), [("/a".to_owned(), Verdict::Different)]);
        }
    }
}
