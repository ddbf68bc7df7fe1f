"""Makes a conda channel on disk out of this machine's Python and wheels from the package index.

    usage: python3 conda-channel.py DIR

For tests that need real conda packages where no conda server can be reached. DIR gets `noarch/` and the folder of this
platform, each with `repodata.json` and packages: `python` is the running interpreter with its standard library, the
others are the wheels that pip finds for it. Metadata, prefix replacement, entry points and both archive formats are the
real thing. Needs pip; writes only inside DIR. Linux.
"""
import bz2
import configparser
import hashlib
import io
import json
import os
import pathlib
import platform
import subprocess
import sys
import sysconfig
import tarfile
import zipfile

from pip._vendor.packaging.requirements import Requirement
from pip._vendor.packaging.utils import canonicalize_name

# What the conda provider puts into every environment, and what tests add.
WHEELS = ["ipykernel", "ipywidgets", "anywidget", "pip", "nbformat", "pyarrow>=14", "six", "cowsay", "attrs"]
# An older version, for constraints.
OLDER = ["six==1.16.0"]
# These come in the older of the two archive formats.
TAR_BZ2 = {"six", "cowsay"}

SUBDIR = {"x86_64": "linux-64", "aarch64": "linux-aarch64"}[platform.machine()]
VERSION = platform.python_version()
MINOR = "%d.%d" % sys.version_info[:2]
SERIES = f"python >={MINOR},<{sys.version_info[0]}.{sys.version_info[1] + 1}.0a0"
LIB = f"lib/python{MINOR}"
# Stands in files for the prefix they will be in; longer than any prefix, for binary files.
PLACEHOLDER = "/placehold" * 25
# Of the standard library: what is of no use in an environment, or belongs to whoever installed it.
LEFT_OUT = {"site-packages", "dist-packages", "test", "tests", "__pycache__", "idlelib", "turtledemo", "ensurepip",
            "lib2to3"}


def zstd(data):
    """A Zstandard frame that stores `data` as it is."""
    out = [b"\x28\xb5\x2f\xfd", b"\x00", b"\x50"]  # magic; no checksum, size or dictionary; a window of 1 MiB
    step = 128 << 10
    for at in range(0, max(len(data), 1), step):
        piece = data[at:at + step]
        out.append((len(piece) << 3 | (at + step >= len(data))).to_bytes(3, "little"))
        out.append(piece)
    return b"".join(out)


def tarball(files):
    """A tar archive of (path, bytes or link, mode)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path, content, mode in files:
            member = tarfile.TarInfo(path)
            member.mode = mode
            if isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
                tar.addfile(member)
            else:
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


class Package:
    """One package: its index entry and its files."""

    def __init__(self, name, version, depends, noarch=None, entry_points=()):
        self.files, self.paths = [], []
        self.noarch, self.entry_points = noarch, list(entry_points)
        self.index = {"name": name, "version": version, "build": "0", "build_number": 0, "depends": sorted(depends),
                      "license": "see its own metadata", "subdir": "noarch" if noarch else SUBDIR}
        if noarch:
            self.index["noarch"] = noarch

    def add(self, path, content, mode=0o644):
        """A file; a `str` is the target of a symbolic link."""
        self.files.append((path, content, mode))
        entry = {"_path": path, "path_type": "softlink" if isinstance(content, str) else "hardlink"}
        if not isinstance(content, str):
            entry |= {"sha256": hashlib.sha256(content).hexdigest(), "size_in_bytes": len(content)}
            if PLACEHOLDER.encode() in content:
                entry |= {"prefix_placeholder": PLACEHOLDER, "file_mode": "text"}
        self.paths.append(entry)

    def write(self, channel):
        """Puts the archive into the channel and returns its name and its entry in `repodata.json`."""
        info = {"info/index.json": self.index, "info/paths.json": {"paths": self.paths, "paths_version": 1}}
        if self.noarch == "python":
            info["info/link.json"] = {"noarch": {"type": "python", "entry_points": self.entry_points},
                                      "package_metadata_version": 1}
        info = [(path, json.dumps(content).encode(), 0o644) for path, content in info.items()]
        stem = "{name}-{version}-{build}".format(**self.index)
        if self.index["name"] in TAR_BZ2:
            name, data = stem + ".tar.bz2", bz2.compress(tarball(info + self.files))
        else:
            name, buffer = stem + ".conda", io.BytesIO()
            with zipfile.ZipFile(buffer, "w") as archive:
                archive.writestr("metadata.json", json.dumps({"conda_pkg_format_version": 2}))
                archive.writestr(f"pkg-{stem}.tar.zst", zstd(tarball(self.files)))
                archive.writestr(f"info-{stem}.tar.zst", zstd(tarball(info)))
            data = buffer.getvalue()
        folder = channel / self.index["subdir"]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
        digests = {"sha256": hashlib.sha256(data).hexdigest(), "md5": hashlib.md5(data).hexdigest(), "size": len(data)}
        return name, self.index | digests


def python():
    """The running interpreter and its standard library."""
    package = Package("python", VERSION, [])
    prefix, libdir = sys.base_prefix, sysconfig.get_config_var("LIBDIR")

    def relocated(binary):
        # The loader finds a shared libpython beside the interpreter, wherever both are.
        for fixed in {os.path.join(prefix, "lib"), libdir}:
            old = fixed.encode() + b"\0"
            binary = binary.replace(b"\0" + old, b"\0" + b"$ORIGIN/../lib".ljust(len(old), b"\0"))
        return binary

    program = os.path.realpath(sys.executable)
    package.add(f"bin/python{MINOR}", relocated(pathlib.Path(program).read_bytes()), 0o755)
    for name in ("python", "python3"):
        package.add(f"bin/{name}", f"python{MINOR}")
    shared = sysconfig.get_config_var("INSTSONAME") or ""
    if sysconfig.get_config_var("Py_ENABLE_SHARED"):
        package.add(f"lib/{shared}", relocated(pathlib.Path(libdir, shared).read_bytes()), 0o755)
    library = pathlib.Path(sysconfig.get_path("stdlib"))
    for folder, folders, names in os.walk(library):
        folders[:] = sorted(name for name in folders if name not in LEFT_OUT and not name.startswith("config-"))
        for name in sorted(names):
            file = pathlib.Path(folder, name)
            if name == "EXTERNALLY-MANAGED" or name.startswith("sitecustomize") or not file.is_file():
                continue
            content = file.read_bytes()
            if name.startswith("_sysconfigdata"):
                content = content.replace(prefix.encode(), PLACEHOLDER.encode())
            package.add(f"{LIB}/{file.relative_to(library)}", content)
    package.add(f"{LIB}/site-packages/README.txt", b"Packages go here.\n")
    return package


def dependencies(metadata):
    """What a wheel needs here, in conda's words."""
    for line in metadata.split("\n\n")[0].splitlines():
        if line.startswith("Requires-Dist:"):
            requirement = Requirement(line.partition(":")[2].strip())
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                yield f"{canonicalize_name(requirement.name)} {requirement.specifier}".strip()


def wheel(file):
    """A wheel as a conda package: for any platform if it is pure, for this one otherwise."""
    with zipfile.ZipFile(file) as archive:
        content = {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}
    name, version, *_, tag = file.stem.split("-")
    info = f"{name}-{version}.dist-info"
    pure = tag == "any"
    site = "site-packages" if pure else f"{LIB}/site-packages"
    scripts = configparser.ConfigParser(delimiters="=", interpolation=None)
    scripts.optionxform = str
    scripts.read_string(content.get(f"{info}/entry_points.txt", b"").decode())
    points = [f"{key} = {value}" for key, value in scripts.items("console_scripts")] \
        if scripts.has_section("console_scripts") else []
    depends = [*dependencies(content[f"{info}/METADATA"].decode()), "python" if pure else SERIES]
    package = Package(canonicalize_name(name), version, depends, "python" if pure else None, points)
    homes = {"purelib": site, "platlib": site, "scripts": "python-scripts" if pure else "bin", "data": "."}
    for path, data in sorted(content.items()):
        parts = path.split("/", 2)
        if parts[0].endswith(".data") and parts[1] in homes:
            mode = 0o755 if parts[1] == "scripts" else 0o644
            package.add(os.path.normpath(f"{homes[parts[1]]}/{parts[2]}"), data, mode)
        else:
            package.add(f"{site}/{path}", data)
    if not pure:
        for point in points:
            script, _, target = point.partition(" = ")
            module, _, function = target.partition(":")
            text = f"#!{PLACEHOLDER}/bin/python{MINOR}\nimport sys\nfrom {module} import {function}\n" \
                   f"sys.exit({function}())\n"
            package.add(f"bin/{script}", text.encode(), 0o755)
    package.add(f"{site}/{info}/INSTALLER", b"conda\n")
    return package


def download(requirements, folder, *options):
    """The wheels of `requirements`, in `folder`."""
    subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
                    "--only-binary=:all:", "--dest", folder, *options, *requirements], check=True)


def main():
    channel = pathlib.Path(sys.argv[1])
    wheels = channel / "wheels"
    download(WHEELS, wheels)
    download(OLDER, wheels, "--no-deps")
    packages = [python(), Package("python-gil", VERSION, [f"python {VERSION}.*"], "generic")]
    packages += [wheel(file) for file in sorted(wheels.glob("*.whl"))]
    repodata = {subdir: {"info": {"subdir": subdir}, "packages": {}, "packages.conda": {}, "repodata_version": 1}
                for subdir in (SUBDIR, "noarch")}
    for package in packages:
        name, entry = package.write(channel)
        kind = "packages.conda" if name.endswith(".conda") else "packages"
        repodata[entry["subdir"]][kind][name] = entry
    for subdir, content in repodata.items():
        (channel / subdir / "repodata.json").write_text(json.dumps(content, indent=1))
    for file in wheels.iterdir():
        file.unlink()
    wheels.rmdir()


main()
