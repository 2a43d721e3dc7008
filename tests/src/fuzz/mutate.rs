//! Small changes, several at a time, and now and then a large one.

/// Numbers at which programs change their minds.
const NUMBERS: [&str; 14] = [
    "0",
    "1",
    "-1",
    "7",
    "127",
    "128",
    "255",
    "256",
    "65535",
    "65536",
    "4294967295",
    "4294967296",
    "18446744073709551615",
    "99999999999999999999",
];
const BYTES: [u8; 16] = [0, 9, 10, 13, 32, b'"', b'\\', b'(', b')', b'{', b'%', b'=', 0x7f, 0x80, 0xc3, 0xff];

pub struct Mutator {
    state: u64,
    words: &'static [&'static str],
    max_len: usize,
}

impl Mutator {
    pub fn new(seed: u64, words: &'static [&'static str], max_len: usize) -> Self {
        Self { state: seed, words, max_len }
    }

    /// A changed one of `seeds`.
    pub fn next(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        let mut input = seeds[self.below(seeds.len())].clone();
        for _ in 0..=self.below(6) {
            self.change(&mut input, seeds);
        }
        input.truncate(self.max_len);
        input
    }

    fn change(&mut self, input: &mut Vec<u8>, seeds: &[Vec<u8>]) {
        let at = self.below(input.len() + 1);
        let (from, to) = self.range(input.len());
        match self.below(12) {
            0 if at < input.len() => input[at] ^= 1 << self.below(8),
            1 if at < input.len() => input[at] = BYTES[self.below(BYTES.len())],
            2 => drop(input.drain(from..to)),
            3 => {
                let part = input[from..to].to_vec();
                input.splice(at..at, part);
            }
            4 => input.truncate(at),
            5 => {
                let other = &seeds[self.below(seeds.len())];
                let (from, to) = self.range(other.len());
                input.splice(at..at, other[from..to].iter().copied());
            }
            6 => {
                let other = &seeds[self.below(seeds.len())];
                input.truncate(at);
                input.extend_from_slice(&other[self.below(other.len() + 1)..]);
            }
            7 => self.number(input, at),
            // A long run of the same: what is quadratic shows.
            8 if self.below(4) == 0 => {
                let piece = match self.below(3) {
                    0 => vec![BYTES[self.below(BYTES.len())]],
                    1 => self.word(),
                    _ => input[from..to.min(from + 40)].to_vec(),
                };
                let count = 1 << self.below(15);
                let count = count.min(self.max_len / piece.len().max(1));
                input.splice(at..at, piece.repeat(count));
            }
            9 => drop(input.splice(from..to, vec![BYTES[self.below(BYTES.len())]; 1])),
            _ => {
                let word = self.word();
                let end = if self.below(2) == 0 { at } else { (at + word.len()).min(input.len()) };
                input.splice(at..end, word);
            }
        }
    }

    /// Another number in place of the next one.
    fn number(&mut self, input: &mut Vec<u8>, at: usize) {
        let Some(start) = input[at..].iter().position(u8::is_ascii_digit).map(|found| at + found) else { return };
        let len = input[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let number = NUMBERS[self.below(NUMBERS.len())];
        input.splice(start..start + len, number.bytes());
    }

    fn word(&mut self) -> Vec<u8> {
        match self.words.len() {
            0 => vec![BYTES[self.below(BYTES.len())]],
            count => self.words[self.below(count)].as_bytes().to_vec(),
        }
    }

    /// Mostly short.
    fn range(&mut self, len: usize) -> (usize, usize) {
        let from = self.below(len + 1);
        let most = if self.below(4) == 0 { len - from } else { (len - from).min(16) };
        (from, from + self.below(most + 1))
    }

    pub fn below(&mut self, bound: usize) -> usize {
        // splitmix64
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % bound.max(1) as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_inputs() {
        let seeds = vec![b"* 1 FETCH (UID 7)\r\n".to_vec(), Vec::new()];
        let inputs = |seed| {
            let mut mutator = Mutator::new(seed, &["BODY[]"], 1_000);
            (0..2_000).map(|_| mutator.next(&seeds)).collect::<Vec<_>>()
        };
        let (one, two) = (inputs(1), inputs(2));
        assert!(one == inputs(1) && one != two);
        assert!(one.iter().all(|input| input.len() <= 1_000) && one.iter().any(|input| input.len() > 500));
    }
}
