//! The first frame of a connection: which channel it wants to be.
//!
//! For: the daemon's routing and the clients' connecting.
//! Promises: unknown keys are ignored and `null` means absent; an unknown channel, a missing required key
//! or a wrong type is an error, upon which the daemon closes without an answer.

use serde::{Deserialize, Serialize};

use crate::lenient::{is_default, null_is_default};
use crate::preamble::PROTOCOL_VERSION;

/// The handshake, by channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "channel", rename_all = "snake_case")]
pub enum Handshake {
    /// JSON questions and answers about the daemon as a whole.
    Pool,
    /// Sync of the settings document, untyped frames.
    SettingsSync,
    /// A new untitled notebook, or an untitled one kept under an id.
    CreateNotebook(CreateNotebook),
    /// The notebook in a file.
    OpenNotebook(OpenNotebook),
    /// A notebook that is open or kept already.
    NotebookSync(NotebookSync),
    /// A notebook in the cloud. A local daemon refuses it with a bootstrap error.
    OpenHostedNotebook(OpenHostedNotebook),
    /// Private channel of another daemon's kernel host. Never accepted here.
    RuntimeAgent {},
}

/// Fields of `create_notebook`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateNotebook {
    /// `python`, `deno` or an installed kernel; anything else falls back to the daemon's default.
    pub runtime: String,
    /// Absolute working directory of the kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// UUID to use or to restore; a value that is no UUID is replaced by a fresh one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notebook_id: Option<String>,
    /// Keep nothing on disk.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "is_default")]
    pub ephemeral: bool,
    /// As sent; [`CreateNotebook::provider_kind`] resolves aliases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package_manager: Option<String>,
    /// Where the environment comes from.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "is_default")]
    pub environment_mode: EnvironmentMode,
    /// Requirement specifiers to seed; asking for them approves them.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "is_default")]
    pub dependencies: Vec<String>,
    /// Whether the bootstrap reply is a typed frame.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "is_default")]
    pub typed_bootstrap: bool,
    /// Who acts on this connection; see [`identity`](crate::identity).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<String>,
}

impl CreateNotebook {
    /// The provider kind that `package_manager` names, aliases resolved (`pip` is uv, `mamba` is conda).
    /// A kind that no installed provider has counts as unset; only the daemon knows which those are.
    pub fn provider_kind(&self) -> Option<&str> {
        self.package_manager.as_deref().map(|name| match name {
            "pip" => "uv",
            "mamba" => "conda",
            kind => kind,
        })
    }
}

/// Where a new notebook's environment comes from. A closed set: anything else refuses the handshake.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EnvironmentMode {
    /// The project around the notebook if there is one, else the notebook's own.
    #[default]
    Auto,
    /// The project around the notebook.
    Project,
    /// The notebook's own.
    Notebook,
}

impl EnvironmentMode {
    /// The wire name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Project => "project",
            Self::Notebook => "notebook",
        }
    }
}

/// Fields of `open_notebook`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenNotebook {
    /// File to open; a directory means a new notebook there; a missing file is made on save.
    pub path: String,
    /// Absolute working directory of the kernel instead of the file's folder. Ours; other daemons ignore it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// Whether the bootstrap reply is a typed frame.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "is_default")]
    pub typed_bootstrap: bool,
    /// Who acts on this connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<String>,
}

/// Fields of `notebook_sync`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotebookSync {
    /// UUID of a room that is there or can be restored, or a path.
    pub notebook_id: String,
    /// Clients send `v4`; not checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// Whether the bootstrap reply is a typed frame.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "is_default")]
    pub typed_bootstrap: bool,
    /// Working directory of an untitled notebook.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// JSON text of notebook metadata, used only if the document has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial_metadata: Option<String>,
    /// Who acts on this connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<String>,
}

/// Fields of `open_hosted_notebook`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenHostedNotebook {
    /// Address of the room.
    pub url: String,
    /// Whether the bootstrap reply is a typed frame.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "is_default")]
    pub typed_bootstrap: bool,
    /// Who acts on this connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<String>,
}

impl Handshake {
    /// Whether this channel takes a connection whose preamble said `version`. If not, the daemon closes
    /// without an answer.
    pub fn accepts_version(&self, version: u8) -> bool {
        match self {
            Self::Pool => true,
            Self::SettingsSync => (1..=PROTOCOL_VERSION).contains(&version),
            _ => version == PROTOCOL_VERSION,
        }
    }

    /// Whether the bootstrap reply is a typed frame; false for channels without one.
    pub fn typed_bootstrap(&self) -> bool {
        match self {
            Self::CreateNotebook(create) => create.typed_bootstrap,
            Self::OpenNotebook(open) => open.typed_bootstrap,
            Self::NotebookSync(sync) => sync.typed_bootstrap,
            Self::OpenHostedNotebook(hosted) => hosted.typed_bootstrap,
            Self::Pool | Self::SettingsSync | Self::RuntimeAgent {} => false,
        }
    }

    /// The operator the client presented, not yet validated.
    pub fn operator(&self) -> Option<&str> {
        match self {
            Self::CreateNotebook(create) => create.operator.as_deref(),
            Self::OpenNotebook(open) => open.operator.as_deref(),
            Self::NotebookSync(sync) => sync.operator.as_deref(),
            Self::OpenHostedNotebook(hosted) => hosted.operator.as_deref(),
            Self::Pool | Self::SettingsSync | Self::RuntimeAgent {} => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(value: serde_json::Value) -> Result<Handshake, serde_json::Error> {
        serde_json::from_slice(value.to_string().as_bytes())
    }

    #[test]
    fn null_is_absence_and_unknown_keys_are_ignored() {
        let spelled = parse(json!({"channel": "create_notebook", "runtime": "python", "working_dir": null,
            "ephemeral": null, "environment_mode": null, "dependencies": null, "typed_bootstrap": null,
            "operator": null, "zzz": 1}))
        .unwrap();
        let short = parse(json!({"channel": "create_notebook", "runtime": "python"})).unwrap();
        assert_eq!(spelled, short);
        assert_eq!(parse(json!({"channel": "pool", "zzz": 1})).unwrap(), Handshake::Pool);
    }

    #[test]
    fn closed_sets_and_required_keys_are_enforced() {
        for refused in [
            json!({"channel": "blob"}),
            json!({"channel": "create_notebook"}),
            json!({"channel": "create_notebook", "runtime": 1}),
            json!({"channel": "create_notebook", "runtime": "python", "environment_mode": "other"}),
            json!({"channel": "open_notebook"}),
            json!({"channel": "notebook_sync", "notebook_id": null}),
            json!({"runtime": "python"}),
            json!([]),
        ] {
            assert!(parse(refused.clone()).is_err(), "{refused}");
        }
    }

    #[test]
    fn package_managers_resolve_to_provider_kinds() {
        for (sent, kind) in [("pip", "uv"), ("mamba", "conda"), ("venv", "venv"), ("uv", "uv")] {
            let create = CreateNotebook { package_manager: Some(sent.into()), ..CreateNotebook::default() };
            assert_eq!(create.provider_kind(), Some(kind));
        }
    }

    #[test]
    fn each_channel_has_its_version_policy() {
        let sync = Handshake::NotebookSync(NotebookSync::default());
        assert!(Handshake::Pool.accepts_version(0) && Handshake::Pool.accepts_version(255));
        assert!(Handshake::SettingsSync.accepts_version(1) && !Handshake::SettingsSync.accepts_version(5));
        assert!(sync.accepts_version(4) && !sync.accepts_version(3));
    }
}
