//! What stands between a container and its image (specification of the kubelet, 10.3).

use super::{Action, ImageState, Verdicts, Wait, WaitReason};
use crate::pod::{Container, ImagePullPolicy};
use crate::time::Now;

pub(super) enum Image {
    Ready(Box<str>),
    Act(Action, Wait),
    Wait(Wait),
}

/// What is known of the image is forgotten after each start, so that policy Always pulls once a start.
pub(super) fn image(c: &Container, v: &Verdicts, now: Now) -> Image {
    let name = c.image.as_str();
    let wait = |reason, until| Wait::container(&c.name, reason, until);
    let check = || Image::Act(Action::CheckImage { image: name.into() }, wait(WaitReason::ImageCheck { image: name.into() }, None));
    let pull = || {
        let action = Action::PullImage { container: c.name.as_str().into(), image: name.into() };
        Image::Act(action, wait(WaitReason::ImagePull { image: name.into() }, None))
    };
    if let Err(message) = crate::image::normalize(name) {
        let message = format!("Failed to apply default image tag {name:?}: couldn't parse image name {name:?}: {message}");
        return Image::Wait(wait(WaitReason::InvalidImage { message: message.into() }, None));
    }
    match (v.images.get(name), c.image_pull_policy) {
        (Some(ImageState::Present(p)), _) => Image::Ready(p.image_ref.clone()),
        (Some(ImageState::Checking), _) => Image::Wait(wait(WaitReason::ImageCheck { image: name.into() }, None)),
        (Some(ImageState::Pulling { .. }), _) => Image::Wait(wait(WaitReason::ImagePull { image: name.into() }, None)),
        (Some(ImageState::Failed(f)), _) if f.retry > now.mono => {
            let reason = if f.backing_off {
                WaitReason::ImageBackOff { image: name.into(), message: f.message.clone() }
            } else {
                WaitReason::PullFailed { reason: f.reason.clone(), message: f.message.clone() }
            };
            Image::Wait(wait(reason, Some(f.retry)))
        }
        (Some(ImageState::Absent), Some(ImagePullPolicy::Never)) => Image::Wait(wait(WaitReason::NeverPull { image: name.into() }, None)),
        (None | Some(ImageState::Failed(_)), Some(ImagePullPolicy::Always)) | (Some(ImageState::Absent), _) => pull(),
        // After a failure, too: the image may have come in another way since.
        (None | Some(ImageState::Failed(_)), _) => check(),
    }
}
