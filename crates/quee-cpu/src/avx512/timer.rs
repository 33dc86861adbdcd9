//! Measures the parts of an encoder block.

use std::time::Instant;

use quee_backbone::encoder::EncoderBlock;
use quee_quant::Width;

use crate::profile::Profile;

/// Places of a block.
#[derive(Clone, Copy)]
pub(crate) enum Place {
    Qkv,
    Attention,
    Proj,
    Fc1,
    Fc2,
}

/// Takes the times of a block's parts, where somebody wants to know them.
pub(crate) struct Timer<'a> {
    into: Option<(&'a mut Profile, &'a EncoderBlock, Width)>,
    since: Option<Instant>,
}

impl<'a> Timer<'a> {
    pub fn new(profile: &'a mut Profile, block: &'a EncoderBlock, width: Width) -> Self {
        Self { into: Some((profile, block, width)), since: None }
    }

    /// One that measures nothing.
    pub fn off() -> Self {
        Self { into: None, since: None }
    }

    pub fn start(&mut self) {
        self.since = self.into.as_ref().and_then(|(profile, ..)| profile.start());
    }

    /// What has passed since the start or the last stop was spent on `operation`.
    pub fn stop(&mut self, operation: &'static str, place: Place) {
        let Some((profile, block, width)) = &mut self.into else { return };
        let site = match place {
            Place::Qkv => &block.qkv.site,
            Place::Attention => &block.attention.site,
            Place::Proj => &block.proj.site,
            Place::Fc1 => &block.fc1.site,
            Place::Fc2 => &block.fc2.site,
        };
        self.since = profile.stop(self.since, operation, site, *width);
    }
}
