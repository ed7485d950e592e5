//! The C API's error codes, with what a person can do about each.

/// Error codes; 0 is success and has no variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The call failed, for no reason that has a code.
    Fail,
    /// The NPU did not answer in time; its driver resets all cores then.
    Timeout,
    /// The NPU or its driver is not there.
    DeviceUnavailable,
    /// Memory is used up.
    Malloc,
    /// An argument is wrong.
    Param,
    /// The model is not one, or damaged.
    Model,
    /// The context is not one, or was destroyed.
    Context,
    /// An input is wrong or missing.
    Input,
    /// An output is wrong or missing.
    Output,
    /// The device is not the model's.
    DeviceUnmatch,
    /// The model was compiled ahead for another runtime.
    IncompatiblePreCompile,
    /// The model was compiled at a level of optimisation that the runtime has not.
    IncompatibleOptimization,
    /// The model was compiled for another chip.
    PlatformUnmatch,
}

/// Each code with its number, its name in the C API, and what to do about it.
const CODES: [(Code, i32, &str, &str); 13] = [
    (Code::Fail, -1, "RKNN_ERR_FAIL", "see what the runtime printed"),
    (Code::Timeout, -2, "RKNN_ERR_TIMEOUT", "the driver has reset all cores: run again"),
    (
        Code::DeviceUnavailable,
        -3,
        "RKNN_ERR_DEVICE_UNAVAILABLE",
        "see whether the NPU's driver is loaded (rockshard doctor)",
    ),
    (Code::Malloc, -4, "RKNN_ERR_MALLOC_FAIL", "load fewer models, or convert with smaller tiles"),
    (Code::Param, -5, "RKNN_ERR_PARAM_INVALID", "an argument was refused"),
    (Code::Model, -6, "RKNN_ERR_MODEL_INVALID", "compile the shard for this runtime"),
    (Code::Context, -7, "RKNN_ERR_CTX_INVALID", "the context is gone: open the shard again"),
    (Code::Input, -8, "RKNN_ERR_INPUT_INVALID", "an input was refused or is missing"),
    (Code::Output, -9, "RKNN_ERR_OUTPUT_INVALID", "an output was refused or is missing"),
    (
        Code::DeviceUnmatch,
        -10,
        "RKNN_ERR_DEVICE_UNMATCH",
        "update the runtime and the driver together",
    ),
    (
        Code::IncompatiblePreCompile,
        -11,
        "RKNN_ERR_INCOMPATILE_PRE_COMPILE_MODEL",
        "compile the shard again, with the runtime's toolkit",
    ),
    (
        Code::IncompatibleOptimization,
        -12,
        "RKNN_ERR_INCOMPATILE_OPTIMIZATION_LEVEL_VERSION",
        "update the runtime",
    ),
    (
        Code::PlatformUnmatch,
        -13,
        "RKNN_ERR_TARGET_PLATFORM_UNMATCH",
        "compile the shard for rk3588",
    ),
];

impl Code {
    /// The code of a number; `None` for 0 and numbers that the API does not have.
    pub fn from_raw(raw: i32) -> Option<Self> {
        CODES.iter().find(|(_, number, _, _)| *number == raw).map(|(code, ..)| *code)
    }

    fn row(self) -> &'static (Code, i32, &'static str, &'static str) {
        CODES.iter().find(|(code, ..)| *code == self).expect("the table has every code")
    }

    /// The number.
    pub fn raw(self) -> i32 {
        self.row().1
    }

    /// Name in the C API.
    pub fn name(self) -> &'static str {
        self.row().2
    }

    /// What to do about it.
    pub fn advice(self) -> &'static str {
        self.row().3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_codes_are_one_to_one() {
        for raw in -13..=-1 {
            assert_eq!(Code::from_raw(raw).unwrap().raw(), raw);
        }
        assert_eq!([Code::from_raw(0), Code::from_raw(-14)], [None, None]);
        assert_eq!(Code::Model.name(), "RKNN_ERR_MODEL_INVALID");
    }
}
