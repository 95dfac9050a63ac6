//! The secret of a state directory: nobody who reads what is published can make an event that is taken for another one.

use std::os::unix::fs::PermissionsExt;

use sha2::{Digest, Sha256};
use siphasher::sip128::SipHasher13;

use tidemill_harness::{HOUR, Place, assert_exit, finish, manifests, printed};

/// The id that is made of a key of one text, with a key for the hash.
fn id(key: &[u8; 16], text: &str) -> String {
    let mut bytes = (text.len() as u32).to_le_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    format!("{:032x}", SipHasher13::new_with_key(key).hash(&bytes).as_u128())
}

#[test]
fn an_event_made_of_what_manifests_say_suppresses_none() {
    let place = Place::new();
    place.plays("");
    place.write("data/first", format!("other\t{HOUR}\t\n"));
    assert_exit(&finish(&mut place.run_command(&["plays.toml", "--until-end"])), 0);
    let manifest = manifests(&place.out(), "play").remove(0);
    let state_id = manifest["state_id"].as_str().expect("manifests name the state").to_owned();
    let texts = ["tidemill dedup ids v1\0", ""];
    let keys = texts.map(|text| {
        let digest = Sha256::new().chain_update(text).chain_update(&state_id).finalize();
        digest[..16].try_into().expect("16 bytes")
    });
    let forged: Vec<String> = keys.iter().map(|key| id(key, "order-1")).collect();
    let line = |id: &str| format!("{id}\t{}\t\n", HOUR + 3_600_000);
    let lines: String = forged.iter().map(|id| line(id)).collect();
    place.write("data/second", format!("{lines}{}", line("order-1")));
    assert_exit(&finish(&mut place.run_command(&["plays.toml", "--until-end"])), 0);
    assert_eq!(place.published("play").len(), 1 + forged.len() + 1);
}

#[test]
fn the_key_is_for_its_owner_alone_and_a_state_that_has_lost_it_is_refused() {
    let place = Place::new();
    place.plays("");
    place.write("data/first", format!("one\t{HOUR}\t\n"));
    assert_exit(&finish(&mut place.run_command(&["plays.toml", "--until-end"])), 0);
    let key = place.path(".tidemill/plays/key");
    let mode = std::fs::metadata(&key).expect("the key").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    std::fs::remove_file(&key).expect("it can be removed");
    let refused = finish(&mut place.run_command(&["plays.toml", "--until-end"]));
    assert_exit(&refused, 75);
    assert!(printed(&refused).contains("put it back from a backup"), "{}", printed(&refused));
}
