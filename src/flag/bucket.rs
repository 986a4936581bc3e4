//! Where a targeting key falls under a flag.
//!
//! The arithmetic is flagd's `fractional`: the 32 bits of `MurmurHash3` over salt and key, scaled to the number of buckets by a multiplication and a shift instead of a remainder, which keeps the buckets equally likely.

use std::str::FromStr;
use std::sync::Arc;

/// How many buckets there are: 0.001 % each.
pub const BUCKETS: u32 = 100_000;

/// A targeting key's place under a flag, in `[0, 100 000)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bucket(u32);

impl Bucket {
    /// The place as a number.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }

    fn from_hash(hash: u32) -> Self {
        let scaled = (u64::from(hash) * u64::from(BUCKETS)) >> 32;
        Self(scaled as u32)
    }
}

/// The function that draws users, frozen for a flag so that no upgrade reshuffles them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HashVersion {
    /// `murmur3_x86_32(salt ++ targeting_key, seed 0)`.
    #[default]
    FlagdV2,
    /// `murmur3_x86_32` with seed 0 over the deterministic CBOR (RFC 8949, section 4.2) of `[salt, targeting_key]`.
    ///
    /// Unlike the one before it tells where the salt ends: there, salt `a` and key `bc` are salt `ab` and key `c`.
    FlagdV3,
}

impl HashVersion {
    /// Every version, oldest first.
    pub const ALL: [Self; 2] = [Self::FlagdV2, Self::FlagdV3];

    /// As written in flag files.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::FlagdV2 => "flagd-v2",
            Self::FlagdV3 => "flagd-v3",
        }
    }
}

/// A hash that no version of Tidegate knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown hash; there are `flagd-v2` and `flagd-v3`")]
pub struct UnknownHash;

impl FromStr for HashVersion {
    type Err = UnknownHash;

    fn from_str(name: &str) -> Result<Self, UnknownHash> {
        Self::ALL.into_iter().find(|hash| hash.as_str() == name).ok_or(UnknownHash)
    }
}

/// Maps targeting keys to buckets under one salt.
///
/// The salt is hashed once, here; a key only goes on from there, so no text is put together for a decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bucketer {
    hash: HashVersion,
    salt: Arc<str>,
    salted: Murmur3,
}

impl Bucketer {
    /// A bucketer for `salt`, by default the flag's key.
    #[must_use]
    pub fn new(hash: HashVersion, salt: &str) -> Self {
        let mut salted = Murmur3::default();
        match hash {
            HashVersion::FlagdV2 => {}
            HashVersion::FlagdV3 => {
                salted.push(CBOR_ARRAY_OF_TWO);
                salted.cbor_text_head(salt.len());
            }
        }
        salted.update(salt.as_bytes());
        Self { hash, salt: salt.into(), salted }
    }

    /// How it hashes.
    #[must_use]
    pub fn hash_version(&self) -> HashVersion {
        self.hash
    }

    /// What it hashes before the targeting key.
    #[must_use]
    pub fn salt(&self) -> &str {
        &self.salt
    }

    /// The bucket of `targeting_key`.
    #[must_use]
    pub fn bucket(&self, targeting_key: &str) -> Bucket {
        Bucket::from_hash(self.hash(targeting_key))
    }

    fn hash(&self, targeting_key: &str) -> u32 {
        let mut state = self.salted;
        match self.hash {
            HashVersion::FlagdV2 => {}
            HashVersion::FlagdV3 => state.cbor_text_head(targeting_key.len()),
        }
        state.update(targeting_key.as_bytes());
        state.finish()
    }
}

/// The hash of a key alone, for tables of keys.
pub(crate) fn fingerprint(key: &str) -> u32 {
    let mut state = Murmur3::default();
    state.update(key.as_bytes());
    state.finish()
}

/// The first byte of a CBOR array of two (RFC 8949, section 3.1: major type 4).
const CBOR_ARRAY_OF_TWO: u8 = 4 << 5 | 2;

/// The major type of CBOR's texts.
const CBOR_TEXT: u8 = 3 << 5;

/// `MurmurHash3_x86_32` with seed 0, fed piece by piece.
///
/// Source: Austin Appleby, `MurmurHash3.cpp` (public domain). Its own interface wants the whole input at once, which
/// would cost the request path a copy of salt and key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Murmur3 {
    state: u32,
    /// The bytes of a block that is not full yet, little-endian.
    pending: u32,
    pending_bytes: u32,
    length: u32,
}

impl Murmur3 {
    fn update(&mut self, bytes: &[u8]) {
        let mut bytes = bytes;
        while self.pending_bytes > 0 {
            let Some((byte, rest)) = bytes.split_first() else { return };
            self.push(*byte);
            bytes = rest;
        }
        let (blocks, rest) = bytes.as_chunks::<4>();
        for block in blocks {
            self.block(u32::from_le_bytes(*block));
        }
        // The algorithm takes the length modulo 2^32.
        #[expect(clippy::cast_possible_truncation, reason = "modulo 2^32")]
        let in_blocks = (bytes.len() - rest.len()) as u32;
        self.length = self.length.wrapping_add(in_blocks);
        for byte in rest {
            self.push(*byte);
        }
    }

    /// The head of a CBOR text of `length` bytes, in its shortest form, as deterministic CBOR wants it.
    fn cbor_text_head(&mut self, length: usize) {
        match (u8::try_from(length), u16::try_from(length), u32::try_from(length)) {
            (Ok(length @ ..=23), ..) => self.push(CBOR_TEXT | length),
            (Ok(length), ..) => self.update(&[CBOR_TEXT | 24, length]),
            (_, Ok(length), _) => {
                self.push(CBOR_TEXT | 25);
                self.update(&length.to_be_bytes());
            }
            (.., Ok(length)) => {
                self.push(CBOR_TEXT | 26);
                self.update(&length.to_be_bytes());
            }
            _ => {
                self.push(CBOR_TEXT | 27);
                self.update(&(length as u64).to_be_bytes());
            }
        }
    }

    fn push(&mut self, byte: u8) {
        self.length = self.length.wrapping_add(1);
        self.pending |= u32::from(byte) << (8 * self.pending_bytes);
        self.pending_bytes += 1;
        if self.pending_bytes == 4 {
            self.block(self.pending);
            self.pending = 0;
            self.pending_bytes = 0;
        }
    }

    fn block(&mut self, block: u32) {
        self.state = (self.state ^ Self::scramble(block)).rotate_left(13).wrapping_mul(5).wrapping_add(0xe654_6b64);
    }

    fn scramble(block: u32) -> u32 {
        block.wrapping_mul(0xcc9e_2d51).rotate_left(15).wrapping_mul(0x1b87_3593)
    }

    fn finish(self) -> u32 {
        let mut hash = self.state ^ Self::scramble(self.pending) ^ self.length;
        hash = (hash ^ (hash >> 16)).wrapping_mul(0x85eb_ca6b);
        hash = (hash ^ (hash >> 13)).wrapping_mul(0xc2b2_ae35);
        hash ^ (hash >> 16)
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use proptest::prelude::*;

    use super::*;
    use crate::flag::Percentage;

    #[track_caller]
    fn check(salt: &str, key: &str, hash: u32) {
        assert_eq!(Bucketer::new(HashVersion::FlagdV2, salt).hash(key), hash, "{salt:?} ++ {key:?}");
    }

    #[test]
    fn known_hashes() {
        // Vectors of MurmurHash3_x86_32 with seed 0; the first is the design's own.
        check("checkout-async", "user-42", 329_369_760);
        check("", "", 0);
        check("", "test", 0xba6b_d213);
        check("", "Hello, world!", 0xc036_3e43);
        check("", "The quick brown fox jumps over the lazy dog", 0x2e4f_f723);
    }

    #[test]
    fn the_third_version_hashes_deterministic_cbor() {
        let v3 = |salt: &str, key: &str| Bucketer::new(HashVersion::FlagdV3, salt).hash(key);
        let bytes = b"\x82\x6echeckout-async\x67user-42";
        let mut whole = Murmur3::default();
        whole.update(bytes);
        assert_eq!(whole.finish(), 2_262_842_273, "the design's own check");
        assert_eq!(v3("checkout-async", "user-42"), 2_262_842_273);
        assert_ne!(v3("a", "bc"), v3("ab", "c"));
        // The lengths at which the head grows: RFC 8949, section 3.
        for (length, head) in [
            (0, &b"\x60"[..]),
            (23, b"\x77"),
            (24, b"\x78\x18"),
            (255, b"\x78\xff"),
            (256, b"\x79\x01\x00"),
            (65_536, b"\x7a\0\x01\0\0"),
        ] {
            let key = "k".repeat(length);
            let mut whole = Murmur3::default();
            whole.update(&[b"\x82\x61s", head, key.as_bytes()].concat());
            assert_eq!(v3("s", &key), whole.finish(), "a key of {length} bytes");
        }
    }

    #[test]
    fn the_ends_of_the_hash_are_the_ends_of_the_buckets() {
        assert_eq!(Bucket::from_hash(0).get(), 0);
        assert_eq!(Bucket::from_hash(u32::MAX).get(), BUCKETS - 1);
        assert_eq!(Bucketer::new(HashVersion::FlagdV2, "checkout-async").bucket("user-42").get(), 7_668);
    }

    #[test]
    fn the_share_is_within_sampling_error() {
        let keys = 1_000_000_u32;
        let bucketer = Bucketer::new(HashVersion::FlagdV2, "async-database");
        let mut key = String::new();
        let bucket = |number: u32| {
            key.clear();
            write!(key, "user-{number}").unwrap();
            bucketer.bucket(&key)
        };
        let buckets: Vec<_> = (0..keys).map(bucket).collect();
        for percent in [0.001, 1.0, 10.0, 50.0, 99.999] {
            let percentage = Percentage::from_percent(percent).unwrap();
            let owned = buckets.iter().filter(|bucket| percentage.owns(**bucket)).count();
            let p = percent / 100.0;
            let sigma = (f64::from(keys) * p * (1.0 - p)).sqrt();
            let off = (owned as f64 - f64::from(keys) * p).abs();
            // Five standard deviations: the keys are fixed, so this either holds for ever or the hash has changed.
            assert!(off < 5.0 * sigma, "{percent} %: {owned} of {keys}");
        }
    }

    #[test]
    fn salts_draw_independently_of_each_other() {
        const PARTS: usize = 10;
        const KEYS: u32 = 100_000;
        let part = |bucket: Bucket| bucket.get() as usize * PARTS / BUCKETS as usize;
        let pairs = [("a", "b"), ("async-database", "async-database-2"), ("checkout", "checkout-v2"), ("", "0")];
        for (hash, (first, second)) in HashVersion::ALL.into_iter().flat_map(|hash| pairs.map(|pair| (hash, pair))) {
            let (one, other) = (Bucketer::new(hash, first), Bucketer::new(hash, second));
            let mut counts = [[0_u32; PARTS]; PARTS];
            for key in (0..KEYS).map(|number| format!("user-{number}")) {
                counts[part(one.bucket(&key))][part(other.bucket(&key))] += 1;
            }
            let rows = counts.map(|row| row.iter().sum::<u32>());
            let columns: [u32; PARTS] = std::array::from_fn(|column| counts.iter().map(|row| row[column]).sum());
            let mut chi_square = 0.0;
            for (row, column) in (0..PARTS).flat_map(|row| (0..PARTS).map(move |column| (row, column))) {
                let expected = f64::from(rows[row]) * f64::from(columns[column]) / f64::from(KEYS);
                chi_square += (f64::from(counts[row][column]) - expected).powi(2) / expected;
            }
            // The upper 1e-5 quantile of chi-square with 81 degrees of freedom: where the regularized upper incomplete
            // gamma function Q(81/2, x/2) is 1e-5. The keys are fixed, so this holds for ever or the hash has changed.
            assert!(chi_square < 147.1, "{hash:?}, {first:?} and {second:?}: {chi_square}");
        }
    }

    proptest! {
        #[test]
        fn the_salt_goes_before_the_key(salt in ".{0,20}", key in ".{0,40}") {
            let whole = Bucketer::new(HashVersion::FlagdV2, "").hash(&format!("{salt}{key}"));
            prop_assert_eq!(Bucketer::new(HashVersion::FlagdV2, &salt).hash(&key), whole);
        }

        #[test]
        fn raising_only_adds(key in ".*", low in 0_u32..=BUCKETS, high in 0_u32..=BUCKETS) {
            let (low, high) = (low.min(high), low.max(high));
            let percentage = |buckets: u32| Percentage::from_percent(f64::from(buckets) / 1000.0).unwrap();
            let bucket = Bucketer::new(HashVersion::FlagdV2, "salt").bucket(&key);
            prop_assert!(bucket.get() < BUCKETS);
            prop_assert!(!percentage(low).owns(bucket) || percentage(high).owns(bucket));
        }
    }
}
