//! A real schema registry (Apicurio, which speaks Confluent's protocol), started from the archive that Maven fetches.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::OnceLock;

use super::kafka::free_port;
use super::{Place, assert_exit, java};

/// The archive of the registry, with all that it needs.
const ARCHIVE: &str = "io.apicurio:apicurio-registry-app:2.6.13.Final:tar.gz:all";

/// A registry that keeps its schemas in memory. It is killed when this is dropped, or when the tests are.
pub(crate) struct Registry {
    place: Place,
    port: u16,
    child: Option<Child>,
}

impl Registry {
    /// One that does not run yet.
    pub(crate) fn absent() -> Self {
        Self { place: Place::new(), port: free_port(), child: None }
    }

    pub(crate) fn start() -> Self {
        let mut registry = Self::absent();
        registry.run();
        registry
    }

    /// What clients of Confluent's protocol are given.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/apis/ccompat/v7", self.port)
    }

    /// Starts it, without any schema, and waits until it answers.
    pub(crate) fn run(&mut self) {
        let port = format!("-Dquarkus.http.port={}", self.port);
        let jar = jar().to_str().expect("UTF-8");
        let args = ["-Dquarkus.http.host=127.0.0.1", &port, "-jar", jar];
        self.child = Some(java::start(&self.place.path(""), &args, "Listening on"));
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The jar to be run, which is fetched and unpacked below `target` once.
fn jar() -> &'static Path {
    static JAR: OnceLock<PathBuf> = OnceLock::new();
    JAR.get_or_init(|| {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("registry");
        let note = dir.join("archive");
        if std::fs::read_to_string(&note).ok().as_deref() != Some(ARCHIVE) {
            let _ = std::fs::remove_dir_all(&dir);
            std::fs::create_dir_all(&dir).expect("a folder");
            let fetched = Command::new("mvn")
                .args(["-q", "-B", "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy"])
                .arg(format!("-Dartifact={ARCHIVE}"))
                .arg(format!("-DoutputDirectory={}", dir.display()))
                .args(["-Dmdep.stripVersion=true", "-Dmdep.useBaseVersion=true"])
                .current_dir(&dir)
                .output();
            assert_exit(&fetched.expect("mvn runs"), 0);
            let archive = dir.join("apicurio-registry-app-all.tar.gz");
            let unpacked = Command::new("tar").arg("xzf").arg(&archive).arg("-C").arg(&dir).output();
            assert_exit(&unpacked.expect("tar runs"), 0);
            std::fs::remove_file(archive).expect("the archive is not needed any more");
            std::fs::write(&note, ARCHIVE).expect("a note of what is there");
        }
        let is_runner = |path: &PathBuf| path.to_string_lossy().ends_with("-runner.jar");
        let files = std::fs::read_dir(&dir).expect("the folder").map(|entry| entry.expect("an entry").path());
        files.into_iter().find(is_runner).expect("the archive holds the registry")
    })
}
