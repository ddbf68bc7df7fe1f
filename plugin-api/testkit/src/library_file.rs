//! A library as a file: what it exports, needs and weighs, read without loading it.

use std::fs;
use std::path::Path;

use object::elf::{DT_NEEDED, FileHeader64};
use object::macho::MachHeader64;
use object::read::elf::{Dyn, ElfFile};
use object::read::macho::{LoadCommandVariant, MachOFile};
use object::{Endianness, File, Object, ObjectSection, ObjectSegment};
use runtimed_plugin_api::adapter::SYMBOL;

/// Bytes of the fixed start of a descriptor: magic, size, ABI major and minor, lowest minor of a host, flags.
const DESCRIPTOR: u64 = 20;

/// What a file says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LibraryFile {
    /// Symbols that others can use.
    pub(crate) exports: Vec<String>,
    /// Libraries that are loaded with it.
    pub(crate) needs: Vec<String>,
    /// Bytes of memory that it is mapped to.
    pub(crate) loaded: u64,
    /// Start of the descriptor, if there is one.
    pub(crate) descriptor: Option<Descriptor>,
}

/// The first fields of a descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Descriptor {
    pub(crate) magic: [u8; 8],
    pub(crate) abi: (u16, u16),
    pub(crate) min_host_minor: u16,
    pub(crate) flags: u16,
}

impl LibraryFile {
    /// Reads a library for this machine. Blocks on the file system.
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        let bytes = fs::read(path).map_err(|error| error.to_string())?;
        Self::parse(&bytes).map_err(|error| error.to_string())
    }

    fn parse(bytes: &[u8]) -> object::Result<Self> {
        let file = File::parse(bytes)?;
        let exported = file.exports()?;
        let mut exports: Vec<String> =
            exported.iter().map(|one| String::from_utf8_lossy(one.name()).into_owned()).collect();
        exports.sort();
        let needs = match &file {
            File::Elf64(elf) => elf_needs(elf)?,
            File::MachO64(macho) => macho_needs(macho)?,
            _ => Vec::new(),
        };
        let loaded = file.segments().map(|segment| segment.size()).sum();
        Ok(Self { exports, needs, loaded, descriptor: descriptor(&file) })
    }
}

fn elf_needs(elf: &ElfFile<'_, FileHeader64<Endianness>>) -> object::Result<Vec<String>> {
    let (endian, data) = (elf.endian(), elf.data());
    let Some((entries, strings)) = elf.elf_section_table().dynamic(endian, data)? else {
        return Ok(Vec::new());
    };
    let strings = elf.elf_section_table().strings(endian, data, strings)?;
    let needed = entries.iter().filter(|entry| entry.tag32(endian) == Some(DT_NEEDED));
    needed.map(|entry| Ok(String::from_utf8_lossy(entry.string(endian, strings)?).into_owned())).collect()
}

fn macho_needs(macho: &MachOFile<'_, MachHeader64<Endianness>>) -> object::Result<Vec<String>> {
    let endian = macho.endian();
    let mut commands = macho.macho_load_commands()?;
    let mut needs = Vec::new();
    while let Some(command) = commands.next()? {
        if let LoadCommandVariant::Dylib(library) = command.variant()? {
            needs.push(String::from_utf8_lossy(command.string(endian, library.dylib.name)?).into_owned());
        }
    }
    Ok(needs)
}

/// The numbers at the start of the descriptor. The pointers after them mean nothing before a loader has been there.
fn descriptor(file: &File<'_>) -> Option<Descriptor> {
    let address = file.exports().ok()?.iter().find(|one| is_ours(one.name()))?.address();
    let start = file.sections().find_map(|section| section.data_range(address, DESCRIPTOR).ok().flatten())?;
    let number = |at: usize| Some(u16::from_ne_bytes(start.get(at..at + 2)?.try_into().ok()?));
    Some(Descriptor {
        magic: start.get(..8)?.try_into().ok()?,
        abi: (number(12)?, number(14)?),
        min_host_minor: number(16)?,
        flags: number(18)?,
    })
}

/// Whether a symbol is the one every plugin has. On macOS symbols begin with an underscore.
fn is_ours(name: &[u8]) -> bool {
    let underscore: &[u8] = if cfg!(target_os = "macos") { b"_" } else { b"" };
    name.strip_prefix(underscore) == Some(SYMBOL.as_bytes())
}
