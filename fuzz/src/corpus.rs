//! What fuzzers found worth keeping, as text that a repository can hold.
//!
//! For: `cargo xtask fuzz`, which adds to it, and the tests, which replay it.
//! Promises: an input for each line, in base64; the same inputs make the same text, whatever their order.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// These inputs, each once.
pub fn pack(inputs: impl IntoIterator<Item = Vec<u8>>) -> String {
    let mut lines: Vec<String> = inputs.into_iter().map(|input| STANDARD.encode(input) + "\n").collect();
    // Short ones first: what is new is mostly found among the long ones.
    lines.sort_by(|a, b| (a.len(), a).cmp(&(b.len(), b)));
    lines.dedup();
    lines.concat()
}

/// The inputs in `text`.
///
/// # Errors
/// The number of the first line, from 1, that is not base64.
pub fn unpack(text: &str) -> Result<Vec<Vec<u8>>, usize> {
    let lines = text.lines().enumerate();
    lines.map(|(number, line)| STANDARD.decode(line).map_err(|_| number + 1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_unpacked() {
        let inputs = [b"longer".to_vec(), vec![0xff, 0], Vec::new(), vec![0xff, 0]];
        let text = pack(inputs);
        assert_eq!(text, "\n/wA=\nbG9uZ2Vy\n");
        assert_eq!(unpack(&text), Ok(vec![Vec::new(), vec![0xff, 0], b"longer".to_vec()]));
        assert_eq!(unpack("/wA=\n?\n"), Err(2));
    }
}
