//! Takes secrets out of texts that somebody is about to send away.
//!
//! For: `runt diagnostics`.
//! Promises: pure; rather takes out too much than too little. What goes: what looks like a token or a key, values of
//! variables and of keys that are called like a secret, credentials and parameters in URLs, private keys, the name
//! of the home folder.
//! Never: proof that nothing is left; who sends it should look at it.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::{Map, Value};

/// What stands in the place of a secret.
pub(super) const REMOVED: &str = "[removed]";
/// Values shorter than this are not looked for elsewhere: `1` and `yes` are everywhere.
const SHORTEST: usize = 6;

/// Words in the name of a key or variable whose value is a secret.
const SECRET_NAME: &str = "token|secret|passw|passphrase|pwd|api[_-]?key|apikey|access[_-]?key|private[_-]?key|\
    signing[_-]?key|encryption[_-]?key|credential|cookie|authorization|\\bauth\\b|_auth\\b|session[_-]?id|signature|\\bdsn\\b|\
    \\bkey\\b|_key\\b|index[_-]?url|database[_-]?url|connection[_-]?string|netrc|webhook";
/// Variables that every shell sets, and that only sound like a secret.
const FOLDERS: [&str; 2] = ["PWD", "OLDPWD"];
/// Keys of JSON objects whose values are variables of processes.
const ENVIRONMENTS: [&str; 4] = ["env", "environ", "environment_variables", "variables"];

static SECRET: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(&format!("(?i){SECRET_NAME}")).ok());

/// What is replaced in texts, in this order, by what is behind it.
static RULES: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
    // Not within a URL: its parameters have a rule of their own, and end sooner.
    let name =
        format!(r#"(?im)(^|[^\w.?&#-])((?:\\*["'])?[\w.-]*(?:{SECRET_NAME})[\w.-]*(?:\\*["'])?\s*[:=]\s*)"#);
    let quoted = r#"(?:\\+"[^"\n]*"|"(?:[^"\\\n]|\\.)*"|'[^'\n]*')"#;
    // `Some("...")` is quoted too. Where nothing says where a value ends, it ends with the line.
    let value = format!(r#"(?:(?:[A-Za-z_][\w:]*\()*{quoted}(?:[^\s,;&}}\])][^\n]*)?|[^\s,;&}}\])][^\n]*)"#);
    [
        // Keys, also those that a log has cut off.
        (r"(?s)-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|\z)".to_owned(), "[removed]"),
        // A header to its end.
        (r"(?im)\b((?:proxy-)?authorization|(?:set-)?cookie|x-[a-z-]*(?:key|token)[a-z-]*)(\s*:\s*)[^\n]*".to_owned(), "$1$2[removed]"),
        // Who, in a URL; a password may have slashes and at signs.
        (r#"([A-Za-z][A-Za-z0-9+.-]*://)[^\s"'<>`]*@"#.to_owned(), "$1[removed]@"),
        // Parameters of a URL.
        (r#"([?&#][\w.%-]+=)[^\s&#"'<>`]+"#.to_owned(), "$1[removed]"),
        // A channel's token in its path.
        (r"(/t/)[^/\s]{6,}".to_owned(), "$1[removed]"),
        (format!("{name}{value}"), "$1$2[removed]"),
        // An argument after its option, also as programs show lists of them.
        (format!(r#"(?i)(--[\w.-]*(?:{SECRET_NAME})[\w.-]*(?:\\*["'],\s*|\s+))(?:{quoted}|\S+)"#), "$1[removed]"),
        // As in a netrc file.
        (format!(r#"(?i)\b(login|password|passwd|passphrase)(\s+)(?:{quoted}|[^\s:=\[]\S*)"#), "$1$2[removed]"),
        // A variable with its value.
        (r#"\b([A-Z][A-Z0-9]*_?[A-Z0-9_]+=)(?:"(?:[^"\\\n]|\\.)*"|'[^'\n]*'|[^\s,;"']+)"#.to_owned(), "$1[removed]"),
        (r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}".to_owned(), "$1 [removed]"),
        // Tokens by the look that their makers gave them.
        (r"\b(?:gh[oprsu]_|github_pat_|glpat-|xox[abeprs]-|sk-|rk_live_|sk_live_|hf_|pypi-|npm_|dckr_pat_|shpat_|AIza|ya29\.|AKIA|ASIA|SG\.)[A-Za-z0-9_.-]{10,}".to_owned(), "[removed]"),
        (r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*)?".to_owned(), "[removed]"),
    ]
    .into_iter()
    .filter_map(|(rule, by)| Some((Regex::new(&rule).ok()?, by)))
    .collect()
});

/// Takes secrets out.
pub(super) struct Cleaner {
    home: Option<String>,
    /// Values that are taken out wherever they stand, longest first.
    known: Vec<String>,
}

impl Cleaner {
    /// For a user with this home and these variables.
    pub(super) fn new(home: Option<String>, variables: impl Iterator<Item = (String, String)>) -> Self {
        let secret = |(name, _): &(String, String)| is_secret(name) && !FOLDERS.contains(&name.as_str());
        let known = variables.filter(secret).map(|(_, value)| value).collect();
        let home = home.map(|home| home.trim_end_matches('/').to_owned()).filter(|home| !home.is_empty());
        let mut cleaner = Self { home, known: Vec::new() };
        cleaner.learn(known);
        cleaner
    }

    /// Takes out of every text what a document says under a secret name.
    pub(super) fn learn_from(&mut self, document: &Map<String, Value>) {
        let mut known = Vec::new();
        collect(&Value::Object(document.clone()), false, &mut known);
        self.learn(known);
    }

    fn learn(&mut self, values: Vec<String>) {
        self.known.extend(values.into_iter().filter(|value| value.len() >= SHORTEST));
        self.known.sort_by_key(|value| std::cmp::Reverse(value.len()));
        self.known.dedup();
    }

    /// The text without secrets.
    pub(super) fn text(&self, text: &str) -> String {
        let mut clean = text.to_owned();
        for value in &self.known {
            clean = clean.replace(value, REMOVED);
        }
        for (rule, by) in &*RULES {
            clean = rule.replace_all(&clean, *by).into_owned();
        }
        match &self.home {
            Some(home) => at_home(&clean, home),
            None => clean,
        }
    }

    /// The document without secrets; keys stay.
    pub(super) fn json(&self, value: &Value) -> Value {
        match value {
            Value::Object(object) => Value::Object(
                object
                    .iter()
                    .map(|(key, value)| {
                        let value = match value {
                            // Figures and flags are none.
                            Value::String(_) | Value::Array(_) | Value::Object(_) if is_secret(key) => {
                                REMOVED.into()
                            }
                            Value::Object(variables) if is_environment(key) => {
                                let names = variables.keys().map(|name| (name.clone(), REMOVED.into()));
                                Value::Object(names.collect())
                            }
                            value => self.json(value),
                        };
                        (key.clone(), value)
                    })
                    .collect(),
            ),
            Value::Array(items) => {
                let before = std::iter::once(&Value::Null).chain(items);
                let item = |(before, item)| if is_option(before) { REMOVED.into() } else { self.json(item) };
                before.zip(items).map(item).collect()
            }
            Value::String(text) => self.text(text).into(),
            other => other.clone(),
        }
    }
}

/// The home folder as `~`, where it is not the beginning of another name.
fn at_home(text: &str, home: &str) -> String {
    let (mut clean, mut rest) = (String::with_capacity(text.len()), text);
    while let Some((before, after)) = rest.split_once(home) {
        let goes_on = after.starts_with(|next: char| next.is_alphanumeric() || "_-".contains(next));
        clean.extend([before, if goes_on { home } else { "~" }]);
        rest = after;
    }
    clean + rest
}

fn is_secret(name: &str) -> bool {
    // Were the rule not to be read, nothing could be told apart.
    SECRET.as_ref().is_none_or(|secret| secret.is_match(name))
}

/// Whether the argument behind this one is its value, and secret.
fn is_option(argument: &Value) -> bool {
    argument.as_str().is_some_and(|it| it.starts_with("--") && !it.contains('=') && is_secret(it))
}

fn is_environment(name: &str) -> bool {
    ENVIRONMENTS.iter().any(|it| name.eq_ignore_ascii_case(it))
}

/// Texts below a secret name, or among variables.
fn collect(value: &Value, secret: bool, into: &mut Vec<String>) {
    match value {
        Value::String(text) if secret => into.push(text.clone()),
        Value::Array(items) => items.iter().for_each(|item| collect(item, secret, into)),
        Value::Object(object) => object
            .iter()
            .for_each(|(key, value)| collect(value, secret || is_secret(key) || is_environment(key), into)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn cleaner() -> Cleaner {
        let variables = [
            ("ACME_API_KEY", "zebra-9001-crossing"),
            ("LANG", "C.UTF-8"),
            ("X_TOKEN", "short"),
            ("PWD", "/home/ana/work"),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Cleaner::new(Some("/home/ana".to_owned()), variables.into_iter())
    }

    /// Each line holds the word `hunter2`, or a token, and must not afterwards.
    #[test]
    fn a_corpus_of_secrets_is_taken_out() {
        let token = "A1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q7r8";
        for text in [
            "fetching https://ana:hunter2@pkgs.example.org/simple failed".to_owned(),
            "proxy http://ana:p@ss/hunter2@proxy:3128/".to_owned(),
            "git+ssh://hunter2@git.example.org/repo.git".to_owned(),
            "GET https://example.org/x?user=ana&token=hunter2#a=1 -> 403".to_owned(),
            "https://example.org/cb?code=hunter2".to_owned(),
            "channel https://conda.example.org/t/tk-hunter2-00/pkgs".to_owned(),
            "Authorization: Bearer hunter2hunter2".to_owned(),
            "authorization: Basic aHVudGVyMg==hunter2".to_owned(),
            "Cookie: a=1; session=hunter2; b=2".to_owned(),
            "x-api-key: hunter2".to_owned(),
            "sent bearer hunter2.hunter2".to_owned(),
            "password = hunter2".to_owned(),
            "PASSWORD: 'hunter2 with blanks'".to_owned(),
            r#"{"client_secret": "hunter2", "n": 1}"#.to_owned(),
            r#"{\"token\": \"hunter2\"}"#.to_owned(),
            "db_password=hunter2, user=ana".to_owned(),
            "--index-url=hunter2".to_owned(),
            "export HUNTER=hunter2".to_owned(),
            "ran with UV_INDEX_PRIVATE_USERNAME=hunter2 uv pip install".to_owned(),
            r#"env FOO="hunter2 and more" run"#.to_owned(),
            r#""key": "hunter2""#.to_owned(),
            "aws_secret_access_key=hunter2".to_owned(),
            "-----BEGIN OPENSSH PRIVATE KEY-----\nhunter2\n-----END OPENSSH PRIVATE KEY-----".to_owned(),
            "-----BEGIN RSA PRIVATE KEY-----\nhunter2\ncut off".to_owned(),
            format!("ghp_{token} hunter2").replace(" hunter2", ""),
            format!("github_pat_{token}"),
            format!("glpat-{token}"),
            format!("xoxb-{token}"),
            format!("sk-proj-{token}"),
            format!("hf_{token}"),
            format!("pypi-{token}"),
            format!("npm_{token}"),
            format!("AIza{token}"),
            "AKIAA1b2C3d4E5f6G7h8".to_owned(),
            format!("eyJhbGciOiJIUzI1NiJ9.{token}.{token}"),
            "it said zebra-9001-crossing and left".to_owned(),
            r#"Config { password: Some("hunter2"), retries: 3 }"#.to_owned(),
            r#"api_key: Secret(Some("hunter2"))"#.to_owned(),
            r#"tokens: ["a", "hunter2"]"#.to_owned(),
            r#"password="a"hunter2 b"#.to_owned(),
            "ran acme --password hunter2".to_owned(),
            "ran acme --token hunter2 --verbose".to_owned(),
            r#"ran ["acme", "--token", "hunter2"]"#.to_owned(),
            r#"ran ["acme","--token","hunter2"]"#.to_owned(),
            "machine h login a password hunter2".to_owned(),
            "LANG_SECRET = abc hunter2".to_owned(),
        ] {
            let clean = cleaner().text(&text);
            assert!(clean.contains(REMOVED), "{text}\n{clean}");
            for secret in ["hunter2", "A1b2C3d4", "zebra"] {
                assert!(!clean.contains(secret), "{text}\n{clean}");
            }
            assert!(!clean.contains("~~"), "{clean}");
        }
    }

    #[test]
    fn what_is_needed_to_understand_a_log_stays() {
        for text in [
            "2026-11-22 13:16:51  WARN runtimed_host::pools: the pool uv: no such package numpyy",
            "2026-11-22 13:16:51  INFO room=639b6fa5-4a2c-4c3e-9d7f-0123456789ab a kernel ended: signal 9",
            "listening on /run/user/1000/runt/runtimed.sock",
            "blob 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 is gone",
            "GET https://example.org/simple/numpy/ -> 404",
            "tokens and keys are words; /home/anastasia is another's",
        ] {
            assert_eq!(cleaner().text(text), text);
        }
        assert_eq!(cleaner().text("in /home/ana/work, `/home/ana`"), "in ~/work, `~`");
        let ends =
            r"cannot write /home/ana. \/home/ana\ {/home/ana} </home/ana> /home/ana&/home/ana/home/ana|";
        assert_eq!(cleaner().text(ends), r"cannot write ~. \~\ {~} <~> ~&~~|");
        for another in ["/home/ana-lisa", "/home/ana_old", "/home/ana2/x"] {
            assert_eq!(cleaner().text(another), another);
        }
        assert_eq!(
            cleaner().text(r#"Config { password: Some("x"), retries: 3 }"#),
            "Config { password: [removed]), retries: 3 }"
        );
        assert_eq!(cleaner().text("https://ana:x@h/p is down"), "https://[removed]@h/p is down");
    }

    #[test]
    fn documents_keep_their_keys() {
        let mut cleaner = cleaner();
        let settings = json!({"theme": "dark", "uv": {"index": [{"name": "x", "url": "https://u:hunter2@h/"}]},
            "my": {"api_token": "open sesame", "retries": 3}, "kernels": {"env": {"FOO": "swordfish"}},
            "secrets": ["hunter2"], "run": ["acme", "--password", "hunter2", "--size", "2"], "uv_pool_size": 2});
        cleaner.learn_from(settings.as_object().unwrap());
        assert_eq!(
            cleaner.json(&settings),
            json!({"theme": "dark", "uv": {"index": [{"name": "x", "url": "https://[removed]@h/"}]},
                "my": {"api_token": "[removed]", "retries": 3}, "kernels": {"env": {"FOO": "[removed]"}},
                "secrets": "[removed]", "run": ["acme", "--password", "[removed]", "--size", "2"], "uv_pool_size": 2})
        );
        assert_eq!(cleaner.text("said open sesame, swordfish"), "said [removed], [removed]");
    }
}
