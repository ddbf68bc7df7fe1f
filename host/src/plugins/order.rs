//! Which plugin starts after which. Pure.

use std::collections::BTreeSet;

use runtimed_plugin_api::manifest::Manifest;

use super::row::Problem;

/// Sorts `manifests` so that each comes after the providers of what it needs, otherwise in the order given.
/// Returns the positions in start order, and those that can never start, with the reason.
pub(super) fn order(manifests: &[&Manifest]) -> (Vec<usize>, Vec<(usize, Problem)>) {
    let mut refused: Vec<(usize, Problem)> = Vec::new();
    let mut waiting: BTreeSet<usize> = (0..manifests.len()).collect();
    // Whoever needs something nobody provides is out, and then perhaps whoever needed that one.
    loop {
        let missing = waiting.iter().find_map(|&at| {
            let manifest = manifests.get(at)?;
            let provided = |need: &&String| providers(manifests, &waiting, need).next().is_none();
            manifest.needs.capabilities.iter().find(provided).map(|need| (at, manifest, need))
        });
        let Some((at, manifest, need)) = missing else { break };
        let reason = format!("plugin `{}` needs {need}, and no usable plugin provides that", manifest.id);
        let remedy =
            format!("install a plugin that provides {need}, or see why the one you have was refused");
        refused.push((at, Problem::refused(reason, remedy)));
        waiting.remove(&at);
    }
    let mut sorted = Vec::new();
    while !waiting.is_empty() {
        let ready = waiting.iter().copied().find(|at| {
            manifests.get(*at).is_some_and(|manifest| {
                let needs = &manifest.needs.capabilities;
                needs.iter().all(|need| providers(manifests, &waiting, need).all(|provider| provider == *at))
            })
        });
        let Some(at) = ready else { break };
        sorted.push(at);
        waiting.remove(&at);
    }
    let circle: Vec<&str> =
        waiting.iter().filter_map(|at| manifests.get(*at)).map(|manifest| manifest.id.as_str()).collect();
    for at in &waiting {
        let reason = format!("plugins need each other in a circle: {}", circle.join(", "));
        refused.push((*at, Problem::refused(reason, "remove one of them")));
    }
    (sorted, refused)
}

/// Positions within `among` of the plugins that provide a capability.
fn providers<'a>(
    manifests: &'a [&'a Manifest],
    among: &'a BTreeSet<usize>,
    capability: &'a str,
) -> impl Iterator<Item = usize> + 'a {
    among.iter().copied().filter(move |at| manifests.get(*at).is_some_and(|it| it.provides(capability)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(id: &str, provides: &str, needs: &[&str]) -> Manifest {
        let text = format!(
            "manifest_version = 1\nid = \"{id}\"\nname = \"\"\nversion = \"1.0.0\"\nabi = {{ major = 1 }}\n\
             library = {{ x = {{ path = \"x\" }} }}\nprovides = [{{ capability = \"{provides}\", name = \"{id}\" }}]\n\
             needs = {{ capabilities = {needs:?} }}\n"
        );
        Manifest::parse(&text, "plugin.toml".as_ref()).unwrap()
    }

    fn sorted(manifests: &[Manifest]) -> (Vec<&str>, Vec<String>) {
        let (order, refused) = order(&manifests.iter().collect::<Vec<_>>());
        let names = order.into_iter().map(|at| manifests[at].id.as_str()).collect();
        (names, refused.into_iter().map(|(_, problem)| problem.reason).collect())
    }

    #[test]
    fn needs_come_first() {
        let rooms = manifest("rooms", "rooms.v1", &["kernel-backend.v1", "blob-store.v1"]);
        let jupyter = manifest("jupyter", "kernel-backend.v1", &["blob-store.v1"]);
        let blobs = manifest("blobs", "blob-store.v1", &[]);
        assert_eq!(sorted(&[rooms, jupyter, blobs]), (vec!["blobs", "jupyter", "rooms"], vec![]));
    }

    #[test]
    fn a_missing_need_is_named_and_takes_its_dependents_along() {
        let plugins = [
            manifest("a", "rooms.v1", &["kernel-backend.v1"]),
            manifest("b", "kernel-backend.v1", &["blob-store.v1"]),
            manifest("c", "env-provider.v1", &[]),
        ];
        let (order, refused) = sorted(&plugins);
        assert_eq!(order, ["c"]);
        assert!(
            refused[0].contains("`b` needs blob-store.v1")
                && refused[1].contains("`a` needs kernel-backend.v1")
        );
    }

    #[test]
    fn a_circle_is_named() {
        let plugins =
            [manifest("a", "rooms.v1", &["blob-store.v1"]), manifest("b", "blob-store.v1", &["rooms.v1"])];
        let (order, refused) = sorted(&plugins);
        assert!(order.is_empty());
        assert_eq!(refused[0], "plugins need each other in a circle: a, b");
    }
}
