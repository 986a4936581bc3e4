//! The requests that a person looks up after a rollback: the latest few that went wrong, by their ids.
//!
//! Room for them is there from the start, and whoever finds its place being written to at that very moment leaves it at
//! that: noting a request takes no lock, waits for nobody and allocates nothing.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};

/// How many requests are kept.
pub const MAX_SAMPLES: usize = 20;

/// The longest id that is kept whole, in bytes. Longer ones are cut.
const ID_BYTES: usize = 128;

const WORD: usize = size_of::<u64>();

/// The ids of the latest requests that went wrong.
#[derive(Debug)]
pub(crate) struct Samples {
    /// How many have been noted.
    noted: AtomicUsize,
    slots: Box<[Slot]>,
}

/// One id, behind a number that is odd while it is written (a sequence lock whose writers never wait).
#[derive(Debug)]
struct Slot {
    version: AtomicU64,
    length: AtomicUsize,
    words: [AtomicU64; ID_BYTES / WORD],
}

impl Default for Samples {
    fn default() -> Self {
        let slot = |_| Slot {
            version: AtomicU64::new(0),
            length: AtomicUsize::new(0),
            words: [const { AtomicU64::new(0) }; ID_BYTES / WORD],
        };
        Self { noted: AtomicUsize::new(0), slots: (0..MAX_SAMPLES).map(slot).collect() }
    }
}

impl Samples {
    /// Notes the request called `id`, in place of the oldest.
    pub(crate) fn note(&self, id: &str) {
        // Relaxed: the number only deals out places.
        let place = self.noted.fetch_add(1, Ordering::Relaxed) % MAX_SAMPLES;
        if let Some(slot) = self.slots.get(place) {
            slot.write(id.as_bytes());
        }
    }

    /// The requests noted, oldest first as far as that can be told.
    pub(crate) fn ids(&self) -> Vec<String> {
        let noted = self.noted.load(Ordering::Relaxed);
        let first = if noted > MAX_SAMPLES { noted % MAX_SAMPLES } else { 0 };
        let (newer, older) = self.slots.split_at(first);
        older.iter().chain(newer).filter_map(Slot::read).collect()
    }
}

impl Slot {
    fn write(&self, id: &[u8]) {
        let version = self.version.load(Ordering::Relaxed);
        let free = version.is_multiple_of(2)
            && self.version.compare_exchange(version, version + 1, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if !free {
            return;
        }
        // Whoever sees a word of what follows also sees the odd version.
        fence(Ordering::Release);
        for (word, bytes) in self.words.iter().zip(id.chunks(WORD)) {
            let mut padded = [0; WORD];
            padded.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
            word.store(u64::from_le_bytes(padded), Ordering::Relaxed);
        }
        self.length.store(id.len().min(ID_BYTES), Ordering::Relaxed);
        // Release: whoever sees the even version sees all of the id.
        self.version.store(version + 2, Ordering::Release);
    }

    fn read(&self) -> Option<String> {
        let before = self.version.load(Ordering::Acquire);
        let bytes: Vec<u8> = self.words.iter().flat_map(|word| word.load(Ordering::Relaxed).to_le_bytes()).collect();
        let length = self.length.load(Ordering::Relaxed);
        // Whatever was read above was read before the version is looked at again.
        fence(Ordering::Acquire);
        let whole = before > 0 && before.is_multiple_of(2) && self.version.load(Ordering::Relaxed) == before;
        whole.then(|| String::from_utf8_lossy(bytes.get(..length).unwrap_or_default()).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn the_latest_are_kept_oldest_first() {
        let samples = Samples::default();
        assert_eq!(samples.ids(), Vec::<String>::new());
        (0..3).for_each(|number| samples.note(&format!("request-{number}")));
        assert_eq!(samples.ids(), ["request-0", "request-1", "request-2"]);
        (3..50).for_each(|number| samples.note(&format!("request-{number}")));
        let latest: Vec<_> = (30..50).map(|number| format!("request-{number}")).collect();
        assert_eq!(samples.ids(), latest);
        samples.note("");
        samples.note(&"x".repeat(ID_BYTES + 1));
        let ids = samples.ids();
        assert_eq!((ids[18].as_str(), ids[19].len()), ("", ID_BYTES));
    }

    #[test]
    fn no_id_is_ever_torn() {
        let samples = Samples::default();
        thread::scope(|scope| {
            for letter in ["a", "b", "c", "d"] {
                let samples = &samples;
                scope.spawn(move || (1..2000).for_each(|number| samples.note(&letter.repeat(number % ID_BYTES + 1))));
            }
            for _ in 0..200 {
                for id in samples.ids() {
                    let first = id.as_bytes()[0];
                    assert!(id.bytes().all(|byte| byte == first), "{id}");
                }
            }
        });
        assert_eq!(samples.ids().len(), MAX_SAMPLES);
    }
}
