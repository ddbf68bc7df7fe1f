//! What the manifest says and the library does not: found before the plugin is used, wherever it would run.

use std::fs;

use crate::world::{BAD, Tools, World};

/// Another plugin's id; a plugin's folder has the name of its id, so a library that takes it moves there.
const HONEST: &str = "honest";

/// One test for each lie: what is written into the manifest for what, and the words of the row.
macro_rules! each {
    ($($name:ident $from:literal => $to:literal, $status:literal $words:literal;)+) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                let Some(tools) = Tools::find() else { return };
                for carrier in ["child", "in-process"] {
                    is_found(&tools, carrier, ($from, $to), $status, $words).await;
                }
            }
        )+
    };
}

each! {
    another_kind "name = \"misbehaving\"\n[run]" => "name = \"other\"\n[run]",
        "failed" "its library does not provide env-provider.v1 `other`";
    another_capability "env-provider.v1" => "blob-store.v1",
        "failed" "its library does not provide blob-store.v1";
    another_id "id = \"misbehaving\"" => "id = \"honest\"",
        "refused" "is the plugin `misbehaving`";
    another_hash "sha256 = \"" => "sha256 = \"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\" } #",
        "refused" "is not the file";
}

async fn is_found(tools: &Tools, carrier: &str, (from, to): (&str, &str), status: &str, words: &str) {
    let daemon = tools.daemon(carrier, "", |home, _| {
        let folder = home.join("plugins").join(BAD);
        let file = folder.join("plugin.toml");
        let manifest = fs::read_to_string(&file).unwrap();
        assert!(manifest.contains(from), "{manifest}");
        fs::write(&file, manifest.replace(from, to)).unwrap();
        if to.contains(HONEST) {
            fs::rename(&folder, home.join("plugins").join(HONEST)).unwrap();
        }
    });
    let mut world = World::open(daemon).await;
    let rows = world.client.list_plugins().await.unwrap();
    let row = rows.iter().find(|row| [BAD, HONEST].contains(&row.id.as_str())).unwrap();
    let reason = row.reason.clone().unwrap_or_default();
    assert!(row.status == status && reason.contains(words), "{carrier}: {row:?}");
    world.others_are_untouched().await;
    world.ends_well().await;
}
