//! Moves inputs between `fuzz/corpus/<target>.txt` and the folders where libFuzzer has them, a file each.
//!
//! `unpack FOLDER` writes the seeds and what is kept of every target into `FOLDER/<target>/`;
//! `pack TARGET FOLDER` keeps what is in `FOLDER`, and nothing else, of one target.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use runtimed_fuzz::{TARGETS, Target, corpus};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["unpack", folder] => unpack(Path::new(folder)),
        ["pack", target, folder] => pack(target, Path::new(folder)),
        _ => Err("usage: corpus unpack FOLDER | pack TARGET FOLDER".into()),
    }
}

fn kept(target: &Target) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name).with_extension("txt")
}

fn unpack(folder: &Path) -> Result<(), Box<dyn Error>> {
    for target in TARGETS {
        let folder = folder.join(target.name);
        fs::create_dir_all(&folder)?;
        for (number, seed) in (target.seeds)().iter().enumerate() {
            fs::write(folder.join(format!("seed-{number}")), seed)?;
        }
        let kept = kept(target);
        let text = if kept.exists() { fs::read_to_string(&kept)? } else { String::new() };
        let inputs = corpus::unpack(&text).map_err(|line| format!("{}:{line}: no base64", kept.display()))?;
        for (number, input) in inputs.iter().enumerate() {
            fs::write(folder.join(format!("kept-{number}")), input)?;
        }
    }
    Ok(())
}

fn pack(target: &str, folder: &Path) -> Result<(), Box<dyn Error>> {
    let target = Target::named(target).ok_or_else(|| format!("there is no target `{target}`"))?;
    let inputs: Vec<Vec<u8>> =
        fs::read_dir(folder)?.map(|file| fs::read(file?.path())).collect::<Result<_, _>>()?;
    let kept = kept(target);
    fs::create_dir_all(kept.parent().ok_or("a file without a folder")?)?;
    fs::write(kept, corpus::pack(inputs))?;
    Ok(())
}
