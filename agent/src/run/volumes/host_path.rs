//! hostPath: what is there is checked, and made where the type says so (specification of the kubelet, 9.3).

use super::Cause;
use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, OpenOptionsExt as _};

pub fn set_up(path: &str, kind: &str) -> Result<(), Cause> {
    let found = fs::metadata(path).map(|m| m.file_type());
    let there = found.is_ok();
    let is = |test: fn(&fs::FileType) -> bool| found.as_ref().is_ok_and(test);
    let (fits, wanted) = match kind {
        "" => return Ok(()),
        "DirectoryOrCreate" if !there => {
            return Ok(fs::DirBuilder::new().recursive(true).mode(0o755).create(path)?);
        }
        "FileOrCreate" if !there => {
            fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o644).open(path)?;
            return Ok(());
        }
        "DirectoryOrCreate" | "Directory" => (is(fs::FileType::is_dir), "directory"),
        // Sockets and devices pass for files, as they do in the kubelet.
        "FileOrCreate" | "File" => (is(|t| !t.is_dir()), "file"),
        "Socket" => (is(|t| t.is_socket()), "socket file"),
        "CharDevice" => (is(|t| t.is_char_device()), "character device"),
        "BlockDevice" => (is(|t| t.is_block_device()), "block device"),
        other => return Err(Cause::Refused(format!("{other} is an invalid volume type"))),
    };
    if fits { Ok(()) } else { Err(Cause::Refused(format!("hostPath type check failed: {path} is not a {wanted}"))) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn each_type_takes_what_it_names_and_says_what_it_found_wanting() {
        let dir = tempfile::tempdir().unwrap();
        let path = |n: &str| dir.path().join(n).to_str().unwrap().to_owned();
        let (folder, file, socket, none) = (path("folder"), path("file"), path("socket"), path("none"));
        fs::create_dir(&folder).unwrap();
        fs::write(&file, "").unwrap();
        let _listener = UnixListener::bind(&socket).unwrap();
        let check = |kind: &str, path: &str| set_up(path, kind).map_err(|e| e.to_string());
        for (kind, fits) in [
            ("Directory", folder.as_str()),
            ("File", &file),
            ("File", &socket),
            ("Socket", &socket),
            ("CharDevice", "/dev/null"),
            ("", &none),
        ] {
            assert_eq!(check(kind, fits), Ok(()), "{kind}");
        }
        for (kind, wrong, wanted) in [
            ("Directory", &file, "directory"),
            ("DirectoryOrCreate", &file, "directory"),
            ("Directory", &none, "directory"),
            ("File", &folder, "file"),
            ("FileOrCreate", &folder, "file"),
            ("File", &none, "file"),
            ("Socket", &file, "socket file"),
            ("CharDevice", &file, "character device"),
            ("BlockDevice", &file, "block device"),
        ] {
            assert_eq!(check(kind, wrong), Err(format!("hostPath type check failed: {wrong} is not a {wanted}")), "{kind}");
        }
        assert_eq!(check("Folder", &none), Err("Folder is an invalid volume type".to_owned()));
        assert!(!dir.path().join("none").exists());
    }

    #[test]
    fn the_creating_types_create_and_keep_what_is_there() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let (folder, file) = (dir.path().join("a/b"), dir.path().join("file"));
        set_up(folder.to_str().unwrap(), "DirectoryOrCreate").unwrap();
        assert!(folder.is_dir());
        set_up(file.to_str().unwrap(), "FileOrCreate").unwrap();
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o644);
        fs::write(&file, "kept").unwrap();
        set_up(file.to_str().unwrap(), "FileOrCreate").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "kept");
    }
}
