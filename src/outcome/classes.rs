//! Which ends of a request are failures of its backend.

use std::str::FromStr;

use crate::outcome::Failure;

/// The lowest status that can be a failure.
const LOWEST: u16 = 400;

/// The highest status there is (RFC 9110, section 15).
const HIGHEST: u16 = 599;

/// Bits in a word of statuses.
const WORD: u16 = 64;

/// Words for the statuses from [`LOWEST`] to [`HIGHEST`].
const WORDS: usize = 4;

/// Some ends of a request, as a person writes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureClass {
    /// The backend answered with a status from the first to the second.
    Statuses(u16, u16),
    /// No connection could be made to it, or it broke off its answer or spoke no HTTP.
    Connect,
    /// It did not connect, read or answer in time.
    Timeout,
}

/// Why a text names no [`FailureClass`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "no kind of failure; there are \"5xx\", \"4xx\", statuses like \"429\" or \"502-504\", \"connect\" and \"timeout\""
)]
pub struct FailureClassError;

impl FromStr for FailureClass {
    type Err = FailureClassError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let status = |text: &str| text.parse().ok().filter(|status| (LOWEST..=HIGHEST).contains(status));
        let (first, last) = match text {
            "connect" => return Ok(Self::Connect),
            "timeout" => return Ok(Self::Timeout),
            "4xx" => (Some(400), Some(499)),
            "5xx" => (Some(500), Some(599)),
            _ => match text.split_once('-') {
                Some((first, last)) => (status(first), status(last)),
                None => (status(text), status(text)),
            },
        };
        match (first, last) {
            (Some(first), Some(last)) if first <= last => Ok(Self::Statuses(first, last)),
            _ => Err(FailureClassError),
        }
    }
}

/// All the ends of a request that are failures of its backend. Copied into every place that asks, since it is asked on
/// the way of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FailureClasses {
    statuses: [u64; WORDS],
    connect: bool,
    timeout: bool,
}

impl Default for FailureClasses {
    /// Whatever a backend can be blamed for without knowing what it serves: 5xx, connections and timeouts.
    fn default() -> Self {
        [FailureClass::Statuses(500, HIGHEST), FailureClass::Connect, FailureClass::Timeout].into_iter().collect()
    }
}

impl FromIterator<FailureClass> for FailureClasses {
    fn from_iter<I: IntoIterator<Item = FailureClass>>(classes: I) -> Self {
        let mut all = Self { statuses: [0; WORDS], connect: false, timeout: false };
        for class in classes {
            match class {
                FailureClass::Connect => all.connect = true,
                FailureClass::Timeout => all.timeout = true,
                FailureClass::Statuses(first, last) => {
                    for status in first.max(LOWEST)..=last.min(HIGHEST) {
                        let (word, bit) = place(status);
                        if let Some(word) = all.statuses.get_mut(word) {
                            *word |= bit;
                        }
                    }
                }
            }
        }
        all
    }
}

impl FailureClasses {
    /// Whether an answer with this status is a failure. One above all that there are counts as the highest.
    #[must_use]
    pub fn has_status(self, status: u16) -> bool {
        let (word, bit) = place(status.clamp(LOWEST, HIGHEST));
        status >= LOWEST && self.statuses.get(word).is_some_and(|word| word & bit != 0)
    }

    /// Whether this kind of trouble with a backend is a failure.
    #[must_use]
    pub fn has(self, failure: Failure) -> bool {
        match failure {
            Failure::Status => true,
            Failure::Connect | Failure::Broken => self.connect,
            Failure::Timeout => self.timeout,
        }
    }
}

/// The word and the bit of a status from [`LOWEST`] to [`HIGHEST`].
fn place(status: u16) -> (usize, u64) {
    let above = status - LOWEST;
    (usize::from(above / WORD), 1 << (above % WORD))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classes(texts: &[&str]) -> FailureClasses {
        texts.iter().map(|text| text.parse::<FailureClass>().unwrap()).collect()
    }

    #[test]
    fn a_status_is_in_what_names_it() {
        let named = classes(&["429", "502-504"]);
        let failing: Vec<_> = (100..=999).filter(|status| named.has_status(*status)).collect();
        assert_eq!(failing, [429, 502, 503, 504]);
        assert!(!named.has(Failure::Timeout) && !named.has(Failure::Broken));
        assert_eq!((100..=999).filter(|status| classes(&["4xx"]).has_status(*status)).count(), 100);
        let usual = FailureClasses::default();
        assert_eq!(usual, classes(&["5xx", "connect", "timeout"]));
        assert_eq!((100..=999).find(|status| usual.has_status(*status)), Some(500));
        assert!(usual.has_status(999) && usual.has(Failure::Timeout) && usual.has(Failure::Broken));
    }

    #[test]
    fn what_names_no_failure_is_refused() {
        for text in ["", "5XX", "2xx", "200", "600", "504-502", "500-", "-", "5x", "timeouts", "399-500"] {
            assert_eq!(text.parse::<FailureClass>(), Err(FailureClassError), "{text}");
        }
    }
}
