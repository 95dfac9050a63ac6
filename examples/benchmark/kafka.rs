//! From a topic, beside a consumer that does nothing else.

use std::error::Error;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};

use tidemill_harness::{cpu_ticks, program};

use crate::measure::{Measured, home, median, run as run_once, topology};

const PARTITIONS: i32 = 3;
const CODEC: &str = "codec = \"zstandard\"\nlevel = 1";

pub(crate) fn run(bootstrap: &str, events: u64, runs: usize, broker: Option<u32>) -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let binary = program();
    let data = dir.path().join("data");
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let topic = format!("benchmark-{}", since.as_millis());
    let servers = format!("kafka.main.bootstrap_servers={bootstrap}");
    let filled = Command::new(&binary)
        .args(["generate", "--events", &events.to_string(), "--kafka", "main", "--topic", &topic])
        .args(["--partitions", &PARTITIONS.to_string(), "--set", &servers, "--out"])
        .arg(&data)
        .stdout(Stdio::null())
        .status()?;
    if !filled.success() {
        return Err("tidemill generate failed".into());
    }
    println!("{events} events from {PARTITIONS} partitions, {runs} runs each, in turns, the median shown");
    let ticks = || broker.and_then(cpu_ticks).unwrap_or(0);
    let (mut bare, mut jobs): (Vec<Measured>, Vec<Measured>) = (Vec::new(), Vec::new());
    let mut broker_seconds = [0.0, 0.0];
    for _ in 0..runs {
        let before = ticks();
        bare.push(consume(bootstrap, &topic, events)?);
        let between = ticks();
        let home = home(dir.path(), &data)?;
        let file = home.join("benchmark.toml");
        let source = format!("kind = \"kafka\"\ncluster = \"main\"\ntopics = [{topic:?}]");
        std::fs::write(&file, topology(&source, CODEC, &data)?)?;
        jobs.push(run_once(&binary, &home, &file, &["--set".to_owned(), servers.clone()], events)?);
        broker_seconds[0] += (between - before) as f64 / 100.0 / runs as f64;
        broker_seconds[1] += (ticks() - between) as f64 / 100.0 / runs as f64;
    }
    let (bare, lowest, highest) = median(bare);
    bare.print("bare consumer loop", lowest, highest);
    let (job, lowest, highest) = median(jobs);
    job.print("whole job, zstd 1", lowest, highest);
    println!("\nthe whole job has {:.0} % of the rate of the bare loop", job.rate / bare.rate * 100.0);
    if broker.is_some() {
        let [bare, job] = broker_seconds;
        println!("CPU seconds of the broker, on average: {bare:.1} beside the bare loop, {job:.1} beside the job");
    }
    Ok(())
}

/// Polls all messages, and looks at their lengths.
fn consume(bootstrap: &str, topic: &str, events: u64) -> Result<Measured, Box<dyn Error>> {
    let begin = Instant::now();
    let ticks = cpu_ticks(std::process::id()).unwrap_or(0);
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "benchmark")
        .set("enable.auto.commit", "false")
        // As Tidemill's own source has them: with the defaults the loop is slower by far.
        .set("fetch.queue.backoff.ms", "5")
        .set("queued.min.messages", "1000000")
        .create()?;
    let mut list = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        list.add_partition_offset(topic, partition, Offset::Beginning)?;
    }
    consumer.assign(&list)?;
    let (mut count, mut bytes) = (0u64, 0usize);
    while count < events {
        match consumer.poll(Duration::from_secs(10)) {
            Some(message) => {
                bytes += message?.payload().map_or(0, <[u8]>::len);
                count += 1;
            }
            None => return Err(format!("nothing more came after {count} messages").into()),
        }
    }
    std::hint::black_box(bytes);
    let cpu_seconds = (cpu_ticks(std::process::id()).unwrap_or(0) - ticks) as f64 / 100.0;
    let rate = events as f64 / begin.elapsed().as_secs_f64();
    Ok(Measured { rate, cpu_seconds, peak_mib: 0.0, cuts: 0, stages: Vec::new() })
}
