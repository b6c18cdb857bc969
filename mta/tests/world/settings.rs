//! The settings of a world's daemon.

use std::path::Path;
use std::sync::Arc;

use mta::config::Config;
use mta::egress::replies::Replies;

use super::parts::{World, listener};

/// What the world's story wants of them, around what every world needs.
pub(crate) fn configuration(world: &World) -> Config {
    let text = configuration_text(world);
    let config = match &world.plans {
        None => Config::parse(Path::new("world.toml"), &text),
        // Only from disk are other files read.
        Some(plans) => {
            let file = world.folder.path().join("world.toml");
            std::fs::write(world.folder.path().join("plans.toml"), plans).unwrap();
            std::fs::write(&file, &text).unwrap();
            Config::load(&file)
        }
    };
    let config = config.unwrap_or_else(|error| panic!("{error}"));
    let replies = world.replies.as_ref();
    let replies =
        replies.map(|file| Replies::load(Path::new(file), &config.shaped.providers).unwrap_or_else(|error| panic!("{error}")));
    Config { replies: replies.map_or_else(|| config.replies.clone(), Arc::new), ..config }
}

/// The same as it would stand in a file.
pub(crate) fn configuration_text(world: &World) -> String {
    let World { members, settings: more, .. } = world;
    let (folder, (signing, anchors)) = (world.folder.path(), world.promises.settings(world.folder.path()));
    let listeners = (0..).zip(members).map(|(nth, (domain, _))| {
        format!(
            "[[listen]]\naddress = \"{}\"\nrole = \"relay\"\ntrusted_networks = [\"192.0.2.0/24\"]\n\
             member = \"did:web:{domain}\"\n",
            listener(nth)
        )
    });
    format!(
        r#"
        hostname = "relay.world.test"
        data_dir = "{}"
        {}
        [signing]
        required = false
        {signing}
        [egress]
        allow_private_addresses = true
        {anchors}
        [[source]]
        name = "ip-a"
        address = "192.0.2.11"
        ehlo = "a.relay.world.test"
        {more}
        "#,
        folder.join("data").display(),
        listeners.collect::<String>(),
    )
}
