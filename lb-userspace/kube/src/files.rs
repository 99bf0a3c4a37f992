//! The discovery files: read at the start, compared, and replaced by rename.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::sets::{Place, State};

const SCHEMA: u32 = 1;
const SOURCE: &str = "shunt-kube";

/// A backend as the file has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Backend {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    pub(crate) state: State,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Document<B> {
    schema: u32,
    source: String,
    generated_at: String,
    backends: B,
}

/// The folder of the files, and what they hold.
#[derive(Debug)]
pub(crate) struct Files {
    folder: PathBuf,
    /// Those that this program has written or found.
    known: BTreeMap<Place, Vec<Backend>>,
}

#[derive(Debug, thiserror::Error)]
#[error("cannot write {}", path.display())]
pub(crate) struct WriteError {
    path: PathBuf,
    source: io::Error,
}

impl Files {
    /// Makes the folder. Others may read there and not write: the daemon refuses a folder that anybody may change.
    pub(crate) fn open(folder: &Path) -> Result<Self, WriteError> {
        let made = DirBuilder::new().recursive(true).mode(0o755).create(folder);
        made.map_err(|source| WriteError { path: folder.to_owned(), source })?;
        Ok(Self { folder: folder.to_owned(), known: BTreeMap::new() })
    }

    pub(crate) fn path(&self, place: &Place) -> PathBuf {
        self.folder.join(place.file_name())
    }

    /// The backends in the file of this place. None: there is no file, or no usable one.
    pub(crate) fn present(&mut self, place: &Place) -> Option<&[Backend]> {
        if !self.known.contains_key(place) {
            let found = read(&self.path(place))?;
            self.known.insert(place.clone(), found);
        }
        self.known.get(place).map(Vec::as_slice)
    }

    /// Replaces the file if it has another set. `true`: it had.
    pub(crate) fn put(
        &mut self,
        place: &Place,
        backends: Vec<Backend>,
        now: String,
    ) -> Result<bool, WriteError> {
        if self.present(place) == Some(backends.as_slice()) {
            return Ok(false);
        }
        let path = self.path(place);
        let document =
            Document { schema: SCHEMA, source: SOURCE.to_owned(), generated_at: now, backends: &backends };
        write(&path, &document).map_err(|source| WriteError { path, source })?;
        self.known.insert(place.clone(), backends);
        Ok(true)
    }

    /// Removes the files of this run whose places are not followed any more. The daemon keeps their last good sets, and
    /// says that the files are missing. Returns those that were removed.
    pub(crate) fn keep_only(&mut self, wanted: impl Fn(&Place) -> bool) -> Vec<Place> {
        let gone: Vec<Place> = self.known.keys().filter(|place| !wanted(place)).cloned().collect();
        for place in &gone {
            self.known.remove(place);
            if let Err(error) = fs::remove_file(self.path(place)) {
                tracing::warn!(path = %self.path(place).display(), %error, "a file is not removed");
            }
        }
        gone
    }
}

fn read(path: &Path) -> Option<Vec<Backend>> {
    let bytes = fs::read(path).ok()?;
    let document: Document<Vec<Backend>> = serde_json::from_slice(&bytes).ok()?;
    (document.schema == SCHEMA).then_some(document.backends)
}

/// Replaces the file as a whole. With an error, the old one is still there.
fn write(path: &Path, document: &impl Serialize) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let new = path.with_file_name(format!(".{name}.new"));
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&new)?;
    let mut text = serde_json::to_vec(document)?;
    text.push(b'\n');
    file.write_all(&text)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    // The name too has to be on the disk.
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::{Family, Key};

    fn place(name: &str) -> Place {
        let service = Key { namespace: "shop".to_owned(), name: name.to_owned() };
        Place { service, port: "http".to_owned(), family: Family::V4 }
    }

    fn backend(id: &str) -> Backend {
        let address = "10.0.0.1:8080".parse().expect("literal");
        Backend { name: "web-1".to_owned(), address, state: State::Ready, id: Some(id.to_owned()) }
    }

    #[test]
    fn a_file_is_replaced_only_by_another_set() {
        let folder = tempfile::tempdir().expect("temp dir");
        let inner = folder.path().join("made/for/it");
        let mut files = Files::open(&inner).expect("made");
        let web = place("web");
        assert!(files.put(&web, vec![backend("1")], "now".to_owned()).expect("written"));
        let text = fs::read_to_string(inner.join("shop.web.http.json")).expect("there");
        let expected = "{\"schema\":1,\"source\":\"shunt-kube\",\"generated_at\":\"now\",\"backends\":[{\"name\":\"web-1\",\
                        \"address\":\"10.0.0.1:8080\",\"state\":\"ready\",\"id\":\"1\"}]}\n";
        assert_eq!(text, expected);
        assert!(!files.put(&web, vec![backend("1")], "later".to_owned()).expect("nothing to do"));
        // Another run finds it.
        let mut again = Files::open(&inner).expect("there");
        assert!(!again.put(&web, vec![backend("1")], "later".to_owned()).expect("nothing to do"));
        assert!(again.put(&web, vec![backend("2")], "later".to_owned()).expect("written"));
        assert!(fs::read_to_string(inner.join("shop.web.http.json")).expect("there").contains("later"));
        let names: Vec<_> =
            fs::read_dir(&inner).expect("there").map(|of| of.expect("there").file_name()).collect();
        assert_eq!(names, ["shop.web.http.json"], "no rest of the writing");
    }

    #[test]
    fn only_files_of_this_run_are_removed() {
        let folder = tempfile::tempdir().expect("temp dir");
        fs::write(folder.path().join("other.json"), "{}").expect("written");
        let mut files = Files::open(folder.path()).expect("there");
        files.put(&place("web"), Vec::new(), "now".to_owned()).expect("written");
        files.put(&place("api"), Vec::new(), "now".to_owned()).expect("written");
        assert_eq!(files.keep_only(|of| *of == place("api")), [place("web")]);
        let mut names: Vec<_> =
            fs::read_dir(folder.path()).expect("there").map(|of| of.expect("there").file_name()).collect();
        names.sort();
        assert_eq!(names, ["other.json", "shop.api.http.json"]);
    }
}
