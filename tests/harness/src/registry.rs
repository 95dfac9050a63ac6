//! A real schema registry (Apicurio, which speaks Confluent's protocol), started from the archive that Maven fetches.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::certificate::Certificate;
use crate::kafka::free_port;
use crate::{Place, Process, assert_exit, java, maven, needs};

/// The archive of the registry, with all that it needs.
const ARCHIVE: &str = "io.apicurio:apicurio-registry-app:2.6.13.Final:tar.gz:all";

/// A registry that keeps its schemas in memory. It is killed when this is dropped, or when the tests are.
pub struct Registry {
    /// In front of the folder that it writes to: fields are dropped in their order.
    process: Option<Process>,
    place: Place,
    port: u16,
    tls: Option<Tls>,
}

/// Its port for TLS, and the flags that make it listen there.
struct Tls {
    port: u16,
    flags: [String; 3],
}

impl Registry {
    /// One that does not run yet.
    pub fn absent() -> Self {
        Self { place: Place::new(), port: free_port(), tls: None, process: None }
    }

    /// Starts one, without any schema.
    pub fn start() -> Self {
        let mut registry = Self::absent();
        registry.run();
        registry
    }

    /// Starts one that also has a port for TLS.
    pub fn start_with_tls(certificate: &Certificate) -> Self {
        let files = (certificate.cert.display(), certificate.key.display());
        let flags = [
            format!("-Dquarkus.http.ssl.certificate.files={}", files.0),
            format!("-Dquarkus.http.ssl.certificate.key-files={}", files.1),
            "-Dquarkus.http.insecure-requests=enabled".to_owned(),
        ];
        let mut registry = Self { tls: Some(Tls { port: free_port(), flags }), ..Self::absent() };
        registry.run();
        registry
    }

    /// What clients are given that use TLS.
    ///
    /// # Panics
    /// When it has no port for that.
    pub fn https_url(&self) -> String {
        let tls = self.tls.as_ref().expect("a registry with TLS");
        format!("https://127.0.0.1:{}/apis/ccompat/v7", tls.port)
    }

    /// What clients of Confluent's protocol are given.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/apis/ccompat/v7", self.port)
    }

    /// Starts it, without any schema, and waits until it answers.
    pub fn run(&mut self) {
        let port = format!("-Dquarkus.http.port={}", self.port);
        let jar = jar().to_str().expect("UTF-8");
        let mut args = vec!["-Dquarkus.http.host=127.0.0.1", &port];
        let tls_port = self.tls.as_ref().map(|tls| format!("-Dquarkus.http.ssl-port={}", tls.port));
        args.extend(tls_port.iter().map(String::as_str));
        args.extend(self.tls.iter().flat_map(|tls| &tls.flags).map(String::as_str));
        args.extend(["-jar", jar]);
        self.process = Some(java::start(&self.place.path(""), &args, "Listening on"));
    }
}

/// The jar to be run. Maven fetches its archive once, below `target`.
///
/// # Panics
/// When it can't be fetched.
#[must_use]
pub fn jar() -> &'static Path {
    static JAR: OnceLock<PathBuf> = OnceLock::new();
    JAR.get_or_init(|| {
        needs::require(needs::Group::Kafka);
        let folder = maven::folder("registry", ARCHIVE, |folder| {
            let artifact = [format!("-Dartifact={ARCHIVE}"), format!("-DoutputDirectory={}", folder.display())];
            let names = ["-Dmdep.stripVersion=true".to_owned(), "-Dmdep.useBaseVersion=true".to_owned()];
            maven::dependency_plugin("copy", folder, &[artifact, names].concat());
            let archive = folder.join("apicurio-registry-app-all.tar.gz");
            let unpacked = Command::new("tar").arg("xzf").arg(&archive).arg("-C").arg(folder).output();
            assert_exit(&unpacked.expect("tar runs"), 0);
            std::fs::remove_file(archive).expect("the archive is not needed any more");
        });
        let is_runner = |path: &PathBuf| path.to_string_lossy().ends_with("-runner.jar");
        let files = std::fs::read_dir(folder).expect("the folder").map(|entry| entry.expect("an entry").path());
        files.into_iter().find(is_runner).expect("the archive holds the registry")
    })
}
