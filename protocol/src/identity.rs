//! Who acts on a connection: principals, operators and actor labels.
//!
//! For: the daemon that issues labels and the rooms that check them.
//! Promises: a label is `<principal>/<operator>`, cut at the first slash; it is, byte for byte, the
//! Automerge actor id.
//! Never: reads the environment or makes random numbers; both come in as values.

/// The principal of a local connection, from the daemon's `USER` and `USERNAME`.
pub fn local_principal(user: Option<&str>, username: Option<&str>) -> String {
    let name = user.or(username).filter(|name| !name.is_empty() && !name.contains('/')).unwrap_or("unknown");
    format!("local:{name}")
}

/// Longest operator in bytes (our choice: real ones have some 20). It is in every change of its client, for good.
const OPERATOR_MAX: usize = 256;

/// The operator a client presented, if it can be used. Of a full actor label only the part after the
/// first slash counts.
pub fn valid_operator(presented: &str) -> Option<&str> {
    let operator = presented.split_once('/').map_or(presented, |(_, operator)| operator);
    let valid =
        (1..=OPERATOR_MAX).contains(&operator.len()) && !operator.contains('/') && !operator.starts_with(':');
    valid.then_some(operator)
}

/// The operator of a connection that presented none.
pub fn desktop_operator(random: u32) -> String {
    format!("desktop:{random:08x}")
}

/// The operator of a program that acts for somebody.
pub fn agent_operator(name: &str, random: u32) -> String {
    format!("agent:{}:{random:08x}", name.to_lowercase())
}

/// `<principal>/<operator>`.
pub fn actor_label(principal: &str, operator: &str) -> String {
    format!("{principal}/{operator}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_without_a_usable_name_is_unknown() {
        assert_eq!(local_principal(Some("ana"), Some("x")), "local:ana");
        assert_eq!(local_principal(None, Some("ana")), "local:ana");
        for user in [None, Some(""), Some("a/b")] {
            assert_eq!(local_principal(user, None), "local:unknown");
        }
    }

    #[test]
    fn operators_have_no_slash_and_no_leading_colon() {
        assert_eq!(valid_operator("agent:a:1"), Some("agent:a:1"));
        assert_eq!(valid_operator("local:ana/agent:a:1"), Some("agent:a:1"));
        for bad in ["", ":a", "a/", "a/b/c", "a/:b", &"x".repeat(257)] {
            assert_eq!(valid_operator(bad), None, "{bad}");
        }
        assert!(valid_operator(&"x".repeat(256)).is_some());
    }
}
