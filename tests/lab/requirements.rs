use std::path::Path;

use super::say;

/// What the lab needs besides iproute2 and util-linux, and the Debian package that brings it.
const PROGRAMS: [(&str, &str); 10] = [
    ("/usr/sbin/charon-systemd", "charon-systemd"),
    ("/usr/sbin/swanctl", "strongswan-swanctl"),
    ("/usr/lib/ipsec/plugins/libstrongswan-kernel-libipsec.so", "libcharon-extra-plugins"),
    ("/usr/lib/ipsec/plugins/libstrongswan-gcm.so", "libstrongswan-standard-plugins"),
    ("/usr/bin/iperf3", "iperf3"),
    ("/usr/bin/ping", "iputils-ping"),
    ("/usr/bin/tshark", "tshark"),
    ("/usr/sbin/nft", "nftables"),
    ("/usr/sbin/dnsmasq", "dnsmasq-base"),
    ("/usr/bin/openssl", "openssl"),
];

/// Without root there is no lab, and the test says so. With root everything must be there: a
/// test that skips itself on the machine that is meant to run it proves nothing.
pub fn lab_is_possible() -> bool {
    if !nix::unistd::geteuid().is_root() {
        say("skipped: network namespaces need root");
        return false;
    }
    let missing: Vec<&str> =
        PROGRAMS.iter().filter(|(file, _)| !Path::new(file).exists()).map(|(_, package)| *package).collect();
    assert!(
        missing.is_empty(),
        "the lab is incomplete: apt-get install --no-install-recommends {} (.ci/run installs all it needs)",
        missing.join(" ")
    );
    true
}
