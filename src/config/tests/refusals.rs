//! Every refusal, with its place and its words.

use super::*;

#[test]
fn a_key_file_that_everybody_can_read_is_warned_of_once() {
    assert_eq!(
        site(SITE).world_readable("pop.psk").findings(),
        ["site.toml:21:12 warning: pre-shared key file \"pop.psk\" can be read by every user (chmod 640, or 600)"]
    );
}
