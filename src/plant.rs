//! Bugs that can be planted on purpose, so that the simulator and the tests prove that they would find them.
//!
//! In a server nothing can be planted: [`Planted::is`] is constantly false there.

/// A bug to plant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plant {
    /// The queue's home tells both partners of a match itself.
    QueueTellsBoth,
    /// A frame is delivered although its receiver has left the room.
    FrameAfterRoomChange,
    /// A client whose socket takes bytes again is not marked as having something to send.
    LostWakeup,
    /// Who was left by a partner is not put back into the queue.
    ForgottenRequeue,
    /// A text message `panic` panics while it is handled.
    PanicOnDemand,
    /// That mail from another host was lost is not noticed.
    IgnoredGap,
}

impl Plant {
    /// The bugs that the simulator must find.
    pub const FOR_SIMULATOR: [Self; 4] =
        [Self::QueueTellsBoth, Self::FrameAfterRoomChange, Self::LostWakeup, Self::ForgottenRequeue];
}

/// The bug that is planted, usually none.
#[derive(Debug, Clone, Copy, Default)]
pub struct Planted(Option<Plant>);

impl Planted {
    /// Plants a bug, or none.
    #[cfg(any(test, feature = "simulator"))]
    #[must_use]
    pub fn new(plant: Option<Plant>) -> Self {
        Self(plant)
    }

    /// Whether this bug is planted.
    #[must_use]
    pub fn is(self, plant: Plant) -> bool {
        cfg!(any(test, feature = "simulator")) && self.0 == Some(plant)
    }
}
