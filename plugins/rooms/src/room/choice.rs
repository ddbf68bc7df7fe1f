//! Which kernel a notebook gets.
//!
//! Promises: pure; what somebody asks for comes first, then what the notebook says, then the settings. A kernel that is
//! not installed is named as it was asked for: whoever starts it knows what to say about it.

use runtimed_plugin_api::KernelKind;
use serde_json::{Map, Value as Json};

/// The kind that runs in an environment; all others bring their own.
pub(crate) const PYTHON: &str = "python";
/// The kind for TypeScript, and for JavaScript unless there is something else.
pub(crate) const DENO: &str = "deno";

/// Languages whose kernel may be Deno, however it is named.
pub(crate) const DENO_LANGUAGES: [&str; 2] = ["typescript", "javascript"];

/// What is said about the kernel of a notebook.
pub(crate) struct Said<'a> {
    /// By who asked for the kernel; empty if they leave it to the notebook.
    pub(crate) asked: &'a str,
    /// Where they want its environment from.
    pub(crate) source: &'a str,
    /// The notebook's metadata.
    pub(crate) metadata: &'a Map<String, Json>,
    /// By the settings.
    pub(crate) default: &'a str,
}

impl Said<'_> {
    /// Whether it is Python whatever is installed.
    pub(crate) fn is_python(&self) -> bool {
        match self.name() {
            Some(name) => built_in(&name).is_some_and(|kind| kind.name == PYTHON),
            None => match self.language() {
                Some(language) => matches!(language.as_str(), "python" | "ipython"),
                None => self.resolve(&[]).name == PYTHON,
            },
        }
    }

    /// The kernel for it, of those that are `installed`.
    pub(crate) fn choose(&self, installed: &[KernelKind]) -> KernelKind {
        let kind = self.resolve(installed);
        match is_habit(self.asked, self.source) && named(&kind.name, installed).is_none() {
            true => python(),
            false => kind,
        }
    }

    /// Who asks for something, if anybody does.
    fn asked(&self) -> Option<&str> {
        Some(self.asked).filter(|asked| !asked.is_empty() && !is_habit(asked, self.source))
    }

    /// The language it says it is in.
    fn language(&self) -> Option<String> {
        let languages = [self.text("kernelspec", "language"), self.text("language_info", "name")];
        languages.into_iter().flatten().next()
    }

    fn resolve(&self, installed: &[KernelKind]) -> KernelKind {
        let find = |name: &str| built_in(name).or_else(|| named(name, installed));
        if let Some(asked) = self.asked() {
            return find(asked).unwrap_or_else(|| unknown(asked));
        }
        let name = self.name();
        let language = self.language();
        name.as_deref()
            .and_then(find)
            .or_else(|| language.as_deref().map(|language| speaks(language, installed))?)
            .or_else(|| name.as_deref().and_then(reminds_of))
            .or_else(|| self.section())
            .or_else(|| name.or(language).map(|name| unknown(&name)))
            .unwrap_or_else(|| {
                let default = if is_habit(self.asked, self.source) { PYTHON } else { self.default };
                find(default).unwrap_or_else(|| unknown(default))
            })
    }

    /// The kernel by its name.
    fn name(&self) -> Option<String> {
        self.asked().map(str::to_owned).or_else(|| self.text("kernelspec", "name"))
    }

    /// Text in a section of the metadata, in lower case.
    fn text(&self, section: &str, key: &str) -> Option<String> {
        let text = self.metadata.get(section)?.get(key)?.as_str()?;
        Some(text.to_lowercase()).filter(|text| !text.is_empty())
    }

    /// What the declared environment is for.
    fn section(&self) -> Option<KernelKind> {
        let runt = self.metadata.get("runt")?;
        let declares = |key: &str| runt.get(key).is_some();
        match (declares(DENO), ["uv", "conda", "pixi"].into_iter().any(declares)) {
            (true, _) => Some(deno()),
            (false, true) => Some(python()),
            (false, false) => None,
        }
    }
}

/// Whether `asked` is what clients ask for when nobody told them anything: `python` and any environment. That is not a
/// wish: it is what a notebook gets whose own kernel is not there.
pub(crate) fn is_habit(asked: &str, source: &str) -> bool {
    asked == PYTHON && matches!(source, "" | "auto")
}

/// The kernels that are known without asking, by each of their names (those of the setting `default_runtime` among them).
pub(crate) fn built_in(name: &str) -> Option<KernelKind> {
    match name {
        PYTHON | "python3" | "py" => Some(python()),
        DENO | "typescript" | "ts" => Some(deno()),
        _ => None,
    }
}

/// The installed kernel called `name`, in any case.
pub(crate) fn named(name: &str, installed: &[KernelKind]) -> Option<KernelKind> {
    installed.iter().find(|kind| kind.name.eq_ignore_ascii_case(name)).cloned()
}

/// A kernel that nobody has heard of.
pub(crate) fn unknown(name: &str) -> KernelKind {
    KernelKind { name: name.to_owned(), language: String::new(), display_name: name.to_owned() }
}

/// A kernel for `language`.
fn speaks(language: &str, installed: &[KernelKind]) -> Option<KernelKind> {
    let speaker = || installed.iter().find(|kind| kind.language.eq_ignore_ascii_case(language)).cloned();
    match language {
        "python" | "ipython" => Some(python()),
        "typescript" | "javascript" => named(DENO, installed).or_else(speaker).or_else(|| Some(deno())),
        _ => speaker(),
    }
}

/// What the name of a kernel that is not installed sounds like: `Python [conda env:x]` is Python.
fn reminds_of(name: &str) -> Option<KernelKind> {
    match name {
        name if name.contains(DENO) => Some(deno()),
        name if name.contains(PYTHON) => Some(python()),
        _ => None,
    }
}

fn python() -> KernelKind {
    KernelKind { name: PYTHON.into(), language: PYTHON.into(), display_name: "Python 3".into() }
}

fn deno() -> KernelKind {
    KernelKind { name: DENO.into(), language: "typescript".into(), display_name: "Deno".into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn kind(name: &str, language: &str) -> KernelKind {
        KernelKind { name: name.into(), language: language.into(), display_name: name.into() }
    }

    #[test]
    fn a_notebook_says_what_it_runs() {
        let installed =
            [kind("python", "python"), kind("ir", "R"), kind("ml", "python"), kind("tslab", "typescript")];
        let choose = |metadata: Json| {
            let said =
                Said { asked: "", source: "", metadata: metadata.as_object().unwrap(), default: "python" };
            let chosen = said.choose(&installed).name;
            assert!(!said.is_python() || chosen == "python", "{metadata}");
            (chosen, said.is_python())
        };
        let sure = |name: &str| (name.to_owned(), true);
        let asks = |name: &str| (name.to_owned(), false);
        assert_eq!(choose(json!({})), sure("python"));
        assert_eq!(choose(json!({"kernelspec": {"name": "python3", "language": "R"}})), sure("python"));
        assert_eq!(choose(json!({"language_info": {"name": "python"}})), sure("python"));
        assert_eq!(choose(json!({"runt": {"conda": {}}})), sure("python"));
        assert_eq!(choose(json!({"kernelspec": {"name": "Deno"}, "runt": {"uv": {}}})), asks("deno"));
        assert_eq!(choose(json!({"runt": {"deno": {}, "uv": {}}})), asks("deno"));
        // By name, then by language, then by what the name sounds like.
        assert_eq!(choose(json!({"kernelspec": {"name": "ML", "language": "python"}})), asks("ml"));
        assert_eq!(choose(json!({"kernelspec": {"name": "mine", "language": "python"}})), asks("python"));
        assert_eq!(choose(json!({"kernelspec": {"name": "ir43", "language": "r"}})), asks("ir"));
        assert_eq!(choose(json!({"kernelspec": {"name": "x", "language": "typescript"}})), asks("tslab"));
        assert_eq!(choose(json!({"kernelspec": {"name": "Python [conda env:x]"}})), asks("python"));
        // Somebody has to say that it is not there.
        assert_eq!(
            choose(json!({"kernelspec": {"name": "x"}, "language_info": {"name": "julia"}})),
            asks("x")
        );
        assert_eq!(choose(json!({"language_info": {"name": "julia"}})), asks("julia"));
        assert_eq!(choose(json!({"language_info": {"name": "R"}, "runt": {"uv": {}}})), asks("ir"));
    }

    #[test]
    fn who_asks_is_heard_first_and_the_settings_last() {
        let r = json!({"kernelspec": {"name": "ir", "language": "R"}});
        let none = json!({});
        let choose = |asked, metadata: &Json, default| {
            let (asked, source) = asked;
            let said = Said { asked, source, metadata: metadata.as_object().unwrap(), default };
            (said.choose(&[kind("ir", "R")]).name, said.is_python())
        };
        assert_eq!(choose(("python3", "auto"), &r, "ir"), ("python".to_owned(), true));
        assert_eq!(choose(("IR", ""), &none, "python"), ("ir".to_owned(), false));
        assert_eq!(choose(("julia", ""), &r, "python"), ("julia".to_owned(), false));
        assert_eq!(choose(("", ""), &none, "ir"), ("ir".to_owned(), false));
        assert_eq!(choose(("", ""), &none, "ts"), ("deno".to_owned(), false));
        // What clients ask for when nobody told them anything.
        let julia = json!({"kernelspec": {"name": "julia"}});
        assert_eq!(choose(("python", "auto"), &r, "python"), ("ir".to_owned(), false));
        assert_eq!(choose(("python", "auto"), &julia, "ir"), ("python".to_owned(), false));
        assert_eq!(choose(("python", ""), &none, "ir"), ("python".to_owned(), true));
        assert_eq!(choose(("python", "auto:uv"), &r, "ir"), ("python".to_owned(), true));
    }
}
