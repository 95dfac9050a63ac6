//! A real Apache Kafka, one node, started from the jars that Maven fetches.

use std::net::TcpListener;
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::sync::mpsc::channel;

use crate::{Place, Process, assert_exit, java, maven, needs, python, root};

/// A broker with a directory of its own. It is killed when this is dropped, or when the tests are.
pub struct Broker {
    /// In front of the folder that it writes to: fields are dropped in their order.
    process: Option<Process>,
    dir: tempfile::TempDir,
    port: u16,
}

impl Broker {
    /// Starts one that a test may break. `more` are lines of its configuration.
    pub fn start(more: &str) -> Self {
        let mut broker = Self::absent(more);
        broker.restart();
        broker
    }

    /// Starts one that has users of SCRAM, told as `kafka-storage format --add-scram` takes them.
    pub fn start_with_user(more: &str, user: &str) -> Self {
        let mut broker = Self::formatted(more, &["--add-scram", user]);
        broker.restart();
        broker
    }

    /// One that does not run yet.
    pub fn absent(more: &str) -> Self {
        Self::formatted(more, &[])
    }

    fn formatted(more: &str, format: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (port, controller) = (free_port(), free_port());
        let data = dir.path().join("data");
        let config = format!(
            "process.roles=broker,controller\n\
             node.id=1\n\
             controller.quorum.voters=1@127.0.0.1:{controller}\n\
             listeners=CLIENTS://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
             advertised.listeners=CLIENTS://127.0.0.1:{port}\n\
             listener.security.protocol.map=CLIENTS:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
             controller.listener.names=CONTROLLER\n\
             inter.broker.listener.name=CLIENTS\n\
             log.dirs={}\n\
             offsets.topic.replication.factor=1\n\
             offsets.topic.num.partitions=1\n\
             transaction.state.log.replication.factor=1\n\
             transaction.state.log.min.isr=1\n\
             transaction.state.log.num.partitions=1\n\
             group.initial.rebalance.delay.ms=0\n\
             auto.create.topics.enable=false\n\
             {more}\n",
            data.display()
        );
        std::fs::write(dir.path().join("server.properties"), config).expect("written");
        let formatted = Command::new("java")
            .args(java::SMALL)
            .args(["-cp", classpath(), "kafka.tools.StorageTool", "format", "-t", "AAAAAAAAAAAAAAAAAAAAAQ", "-c"])
            .arg(dir.path().join("server.properties"))
            .args(format)
            .output()
            .expect("java runs");
        assert_exit(&formatted, 0);
        Self { dir, port, process: None }
    }

    /// Address for clients.
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// `kill -9`
    pub fn kill(&mut self) {
        if let Some(process) = self.process.take() {
            process.kill();
        }
    }

    /// Starts it on its port and data, and waits until it answers.
    pub fn restart(&mut self) {
        self.kill();
        let config = self.dir.path().join("server.properties");
        let args = ["-cp", classpath(), "kafka.Kafka", config.to_str().expect("UTF-8")];
        self.process = Some(java::start(self.dir.path(), &args, "Kafka Server started"));
    }
}

/// Address of the cluster for tests that break nothing: that of `KAFKA_BOOTSTRAP`, or a broker of our own.
pub fn shared() -> &'static str {
    static SHARED: OnceLock<String> = OnceLock::new();
    SHARED.get_or_init(|| {
        if let Ok(bootstrap) = std::env::var("KAFKA_BOOTSTRAP") {
            return bootstrap;
        }
        let (ready, started) = channel();
        // The broker dies with the thread that starts it: this one stays.
        std::thread::spawn(move || {
            let broker = Broker::start("");
            ready.send(broker.bootstrap()).expect("somebody waits");
            loop {
                std::thread::park();
            }
        });
        started.recv().expect("the broker starts")
    })
}

/// A name that no other topic has.
pub fn topic(name: &str) -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    format!("{name}-{}", since.as_nanos())
}

/// Runs `tests/readers/kafka_tool.py`, which must succeed.
#[track_caller]
pub fn tool(bootstrap: &str, args: &[&str]) -> Output {
    let done = python("kafka_tool.py", &[&[bootstrap], args].concat());
    assert_exit(&done, 0);
    done
}

/// Sends lines to the partitions in turn, or all to one.
#[track_caller]
pub fn produce(place: &Place, bootstrap: &str, topic: &str, lines: &str, more: &[&str]) {
    let file = place.write("to-send", lines);
    tool(bootstrap, &[&["produce", topic, file.to_str().expect("UTF-8")], more].concat());
}

/// A port of the loopback address that nobody listens on.
#[must_use]
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("its address").port()
}

/// The jars of the broker, as a class path. Maven fetches them once, below `target`.
///
/// # Panics
/// When they can't be fetched.
#[must_use]
pub fn classpath() -> &'static str {
    static CLASSPATH: OnceLock<String> = OnceLock::new();
    CLASSPATH.get_or_init(|| {
        needs::require(needs::Group::Kafka);
        let pom = root().join("tests/harness/kafka/pom.xml");
        let wanted = std::fs::read_to_string(&pom).expect("the list of jars");
        let folder = maven::folder("kafka", &wanted, |folder| {
            let target = format!("-DoutputDirectory={}", folder.display());
            let args = ["-f".to_owned(), pom.display().to_string(), target, "-DincludeScope=runtime".to_owned()];
            maven::dependency_plugin("copy-dependencies", folder, &args);
        });
        folder.join("*").to_str().expect("UTF-8").to_owned()
    })
}
