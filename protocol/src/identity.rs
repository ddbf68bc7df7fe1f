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

/// The operator a client presented, if it can be used. Of a full actor label only the part after the
/// first slash counts.
pub fn valid_operator(presented: &str) -> Option<&str> {
    let operator = presented.split_once('/').map_or(presented, |(_, operator)| operator);
    let valid = !operator.is_empty() && !operator.contains('/') && !operator.starts_with(':');
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

/// Whether a connection of `principal` may present changes by `actor`: its own, or a label without a
/// principal, which older local clients use.
pub fn may_write_as(principal: &str, actor: &str) -> bool {
    actor.split_once('/').is_none_or(|(owner, _)| owner == principal)
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
        for bad in ["", ":a", "a/", "a/b/c", "a/:b"] {
            assert_eq!(valid_operator(bad), None, "{bad}");
        }
    }

    #[test]
    fn nobody_writes_as_somebody_else() {
        assert!(may_write_as("local:ana", "local:ana/desktop:1"));
        assert!(may_write_as("local:ana", "agent:evil:1"));
        assert!(!may_write_as("local:ana", "local:bob/desktop:1"));
    }
}
