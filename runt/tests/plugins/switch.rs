//! Plugins are switched on and off while the daemon is down.

use std::fs;

use crate::world::World;

#[test]
fn the_settings_keep_everything_else() {
    let world = World::new();
    let plugin = world.plugin("child", "0.1.0");
    world.plugins_command(&["add", plugin.to_str().unwrap()]).good();
    let settings = world.settings();
    fs::create_dir_all(settings.parent().unwrap()).unwrap();
    fs::write(&settings, "{\"zebra\": 1, \"theme\": \"dark\", \"plugins\": {\"other\": []}}").unwrap();

    let off = world.plugins_command(&["disable", "misbehaving"]).good().out;
    assert!(off.contains("misbehaving is switched off."), "{off}");
    let text = fs::read_to_string(&settings).unwrap();
    let squeezed: String = text.split_whitespace().collect();
    assert_eq!(squeezed, r#"{"zebra":1,"theme":"dark","plugins":{"other":[],"disabled":["misbehaving"]}}"#);
    let (status, reason) = world.status("misbehaving");
    assert_eq!(status, "disabled");
    assert!(reason.contains("runt plugins enable misbehaving"), "{reason}");
    let again = world.plugins_command(&["disable", "misbehaving"]).good().out;
    assert!(again.contains("off already"), "{again}");

    // One that is gone can still be taken off the list.
    world.plugins_command(&["remove", "misbehaving"]).good();
    world.plugins_command(&["enable", "misbehaving"]).good();
    let error = world.plugins_command(&["enable", "misbehaving"]).bad();
    assert!(error.contains("there is no plugin `misbehaving`"), "{error}");

    fs::write(&settings, "{").unwrap();
    world.plugins_command(&["add", plugin.to_str().unwrap()]).good();
    let error = world.plugins_command(&["disable", "misbehaving"]).bad();
    assert!(error.contains("cannot be read as JSON") && error.contains("was not changed"), "{error}");
    assert_eq!(fs::read_to_string(&settings).unwrap(), "{");
}

#[test]
fn what_others_installed_is_not_removed() {
    let world = World::new();
    let bundled = world.home().join("dist/lib/runt/plugins/misbehaving");
    fs::create_dir_all(bundled.parent().unwrap()).unwrap();
    fs::rename(world.plugin("child", "0.1.0"), &bundled).unwrap();
    let error = world.plugins_command(&["remove", "misbehaving"]).bad();
    assert!(error.contains("came with runtimed") && error.contains("runt plugins disable"), "{error}");
    for id in ["..", ".", "/", "a/b", "", "../../x"] {
        let error = world.plugins_command(&["remove", id]).bad();
        assert!(error.contains("Nothing was removed."), "{error}");
    }
    assert!(bundled.join("plugin.toml").exists());

    // The user's own comes first, and the other one is folded away.
    let own = world.plugin("child", "0.2.0");
    world.plugins_command(&["add", own.to_str().unwrap()]).good();
    let folded = world.plugins_command(&["list"]).good().out;
    assert!(folded.contains("1 shadowed; --all shows it") && !folded.contains("bundled"), "{folded}");
    let all = world.plugins_command(&["list", "--all"]).good().out;
    assert!(all.contains("bundled") && all.contains("comes first"), "{all}");
}
