//! Cores that fail while views are on their way: the words are those of a device in order, or an error says which core, and the conversation goes on.

mod scenes;

use rockshard::{
    Answer, Captioner, CaptionerOptions, Conversation, Devices, Error, Pack, Rgb, RunOptions,
    Sampling,
};
use rockshard_device_kit::{Fault, FaultyDevice, Place};
use rockshard_devices::DeviceName;
use rockshard_manifest::CoreId;
use rockshard_runtime::CoresOptions;
use scenes::{converted, drawings};
use std::ops::ControlFlow;
use std::sync::Arc;

const QUESTION: &str = "Describe this image.";
/// Views of an image: two by two, and the whole.
const VIEWS: usize = 5;

/// A captioner on the simulator, with faults on demand.
fn captioner(pack: &Pack) -> (FaultyDevice, Captioner) {
    let devices = rockshard_devices::open(DeviceName::Sim).unwrap();
    let device = FaultyDevice::new(devices.npu.clone());
    let devices = Devices { npu: Arc::new(device.clone()), ..devices };
    let cores =
        rockshard::take_cores_with(&devices, CoresOptions::new(devices.npu.cores())).unwrap();
    let captioner = Captioner::load(&cores, pack, &CaptionerOptions::default()).unwrap();
    (device, captioner)
}

fn conversation(captioner: &Captioner) -> Conversation<'_> {
    captioner.conversation(Sampling::default(), RunOptions::default()).unwrap()
}

fn ask(
    conversation: &mut Conversation<'_>,
    question: &str,
    images: &[Rgb],
) -> Result<Answer, Error> {
    conversation.ask(question, images, 32, &mut |_| ControlFlow::Continue(()))
}

#[test]
fn a_core_that_fails_changes_no_word() {
    let (_folder, pack) = converted("shards/tiny-vlm");
    let drawings = drawings(3);
    let (_, healthy) = captioner(&pack);
    let expected = ask(&mut conversation(&healthy), QUESTION, &drawings).unwrap();
    assert_eq!(expected.times.views, 3 * VIEWS);
    assert!(expected.trace.incidents.is_empty());
    let failure = Fault::Run(rockshard_device::DeviceErrorKind::Run);
    let place = Place::core(CoreId::Npu(1));
    for (fault, times) in [(failure, u64::MAX), (Fault::Reset, 1), (Fault::Panic, 2)] {
        let (device, captioner) = captioner(&pack);
        device.inject(place.clone(), fault, times);
        let answer = ask(&mut conversation(&captioner), QUESTION, &drawings).unwrap();
        assert!(device.injected() > 0, "{fault:?} never struck");
        assert_eq!(answer.text, expected.text, "{fault:?}");
        let told = &answer.trace.incidents;
        assert!(told.iter().any(|i| i.to_string().contains("core 1")), "{fault:?}: {told:?}");
    }
}

/// Nothing of a question that failed is left: not its words, not its views, not what the language model had been fed.
#[test]
fn when_all_cores_fail_the_conversation_is_as_it_was() {
    let (_folder, pack) = converted("shards/tiny-vlm");
    let drawings = drawings(2);
    let (device, captioner) = captioner(&pack);
    let mut conversation = conversation(&captioner);
    let mut healthy = self::conversation(&captioner);
    for talk in [&mut conversation, &mut healthy] {
        ask(talk, QUESTION, &drawings[..1]).unwrap();
    }
    // Some views arrive, and are fed, before all cores are out of order: 3 tries a core of whatever comes then.
    device.inject(Place::default(), Fault::Slow(std::time::Duration::ZERO), 2);
    device.inject(Place::default(), Fault::Run(rockshard_device::DeviceErrorKind::Run), 1000);
    let error = ask(&mut conversation, "What colour is it?", &drawings[1..]).unwrap_err();
    let message = error.to_string();
    assert!(message.contains("core") && message.contains("injected"), "{message}");
    // Many fail, some before the first word is fed.
    while ask(&mut conversation, "What colour is it?", &drawings[1..]).is_err() {}
    let found = ask(&mut conversation, "Where is it?", &[]).unwrap();
    ask(&mut healthy, "What colour is it?", &drawings[1..]).unwrap();
    let expected = ask(&mut healthy, "Where is it?", &[]).unwrap();
    assert_eq!(found.text, expected.text);
    assert_eq!(found.times.prompt_tokens, expected.times.prompt_tokens);
}
