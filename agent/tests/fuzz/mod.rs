//! Seeded mutation of a corpus: the same run every time. `FUZZ_ITERATIONS` and `FUZZ_SEED` make it longer and other.

/// A small generator of numbers (xorshift): the tests need no more, and no dependency.
pub struct Dice(u64);

impl Dice {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % (n.max(1) as u64)).unwrap()
    }
}

/// Changes bytes; some may come from another text of the corpus.
pub type Mutate = fn(&mut Vec<u8>, &[u8], &mut Dice);

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |v| v.parse().expect("a number"))
}

/// Gives `one` each text of the corpus, and then that many which were changed at most `most` times.
pub fn drive(corpus: &[impl AsRef<[u8]>], iterations: u64, most: usize, mutate: Mutate, one: fn(&[u8])) {
    corpus.iter().for_each(|bytes| one(bytes.as_ref()));
    let seed = number("FUZZ_SEED", 0x5eed_1e55);
    for i in 0..number("FUZZ_ITERATIONS", iterations) {
        let mut dice = Dice((seed ^ i.wrapping_mul(0x9e37_79b9_7f4a_7c15)) | 1);
        for _ in 0..8 {
            dice.next();
        }
        let mut bytes = corpus[dice.below(corpus.len())].as_ref().to_vec();
        let other = corpus[dice.below(corpus.len())].as_ref();
        for _ in 0..=dice.below(most) {
            mutate(&mut bytes, other, &mut dice);
        }
        let result = std::panic::catch_unwind(|| one(&bytes));
        assert!(result.is_ok(), "FUZZ_SEED={seed} iteration {i}: {:?}", String::from_utf8_lossy(&bytes));
    }
}
