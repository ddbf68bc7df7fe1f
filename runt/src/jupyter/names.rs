//! Names for kernels that people can say and type.

use uuid::Uuid;

const FIRST: [&str; 32] = [
    "amber", "bold", "brave", "bright", "calm", "clever", "cosy", "eager", "fair", "fond", "gentle", "glad",
    "happy", "honest", "jolly", "keen", "kind", "lively", "lucky", "merry", "mild", "neat", "noble", "proud",
    "quick", "quiet", "sharp", "sunny", "swift", "warm", "wise", "witty",
];
const SECOND: [&str; 32] = [
    "badger", "bear", "beaver", "crane", "deer", "dove", "duck", "eagle", "falcon", "ferret", "finch", "fox",
    "goose", "hare", "heron", "lark", "lynx", "magpie", "marten", "mole", "newt", "otter", "owl", "panda",
    "raven", "robin", "seal", "stork", "swan", "toad", "wolf", "wren",
];

/// Two words at random, such as `brave-otter`.
pub(crate) fn pet_name() -> String {
    let random = Uuid::new_v4();
    let word = |words: [&'static str; 32], byte: usize| {
        let byte = random.as_bytes().get(byte).copied().unwrap_or_default();
        words.get(usize::from(byte) % words.len()).copied().unwrap_or("kernel")
    };
    format!("{}-{}", word(FIRST, 0), word(SECOND, 1))
}
