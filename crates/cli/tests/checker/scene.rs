//! What the tiny model can be asked to draw.

use serde::{Deserialize, Serialize};

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$item:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$item])* #[serde(rename = $word)] $variant,)*
        }

        impl $name {
            /// Every one, in the order of the training program.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The word used in captions.
            pub fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.word())
            }
        }
    };
}

words! {
    /// Outline of the figure.
    Shape {
        /// A filled circle.
        Circle = "circle",
        /// An upright square.
        Square = "square",
        /// A triangle with its tip at the top.
        Triangle = "triangle",
        /// A square on its corner.
        Diamond = "diamond",
        /// An upright cross with arms of equal length.
        Cross = "cross",
        /// A circle with a round hole.
        Ring = "ring",
    }
}

words! {
    /// Colour of the figure or the background.
    Colour {
        /// Red.
        Red = "red",
        /// Green.
        Green = "green",
        /// Blue.
        Blue = "blue",
        /// Yellow.
        Yellow = "yellow",
        /// Purple.
        Purple = "purple",
        /// Orange.
        Orange = "orange",
        /// White.
        White = "white",
        /// Black.
        Black = "black",
    }
}

words! {
    /// Size of the figure.
    Size {
        /// Radius 18 of 128.
        Small = "small",
        /// Radius 30 of 128.
        Large = "large",
    }
}

words! {
    /// Place of the figure's centre.
    Position {
        /// Upper row, left.
        TopLeft = "top left",
        /// Upper row, middle.
        Top = "top",
        /// Upper row, right.
        TopRight = "top right",
        /// Middle row, left.
        Left = "left",
        /// The middle.
        Center = "center",
        /// Middle row, right.
        Right = "right",
        /// Lower row, left.
        BottomLeft = "bottom left",
        /// Lower row, middle.
        Bottom = "bottom",
        /// Lower row, right.
        BottomRight = "bottom right",
    }
}

impl Colour {
    /// Red, green and blue, 0 to 255.
    pub fn rgb(self) -> [u8; 3] {
        match self {
            Colour::Red => [220, 40, 40],
            Colour::Green => [40, 160, 60],
            Colour::Blue => [50, 80, 220],
            Colour::Yellow => [240, 220, 50],
            Colour::Purple => [140, 60, 180],
            Colour::Orange => [245, 140, 40],
            Colour::White => [245, 245, 245],
            Colour::Black => [25, 25, 25],
        }
    }
}

impl Size {
    /// Radius in a picture of [`SIDE`](super::SIDE) pixels.
    pub fn radius(self) -> f32 {
        match self {
            Size::Small => 18.0,
            Size::Large => 30.0,
        }
    }
}

impl Position {
    /// Centre `[x, y]` in a picture of [`SIDE`](super::SIDE) pixels.
    pub fn centre(self) -> [f32; 2] {
        let at = |n: usize| [40.0, 64.0, 88.0][n % 3];
        let index = self as usize;
        [at(index), at(index / 3)]
    }
}

/// A picture the tiny model is asked for; an entry of its `held_out.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scene {
    /// Outline of the figure.
    pub shape: Shape,
    /// Its colour.
    pub colour: Colour,
    /// Its size.
    pub size: Size,
    /// Its place.
    pub position: Position,
    /// Colour of the rest.
    pub background: Colour,
    /// The prompt.
    #[serde(default)]
    pub caption: String,
    /// The seed to draw it with.
    #[serde(default)]
    pub seed: u64,
}

impl Scene {
    /// A scene with its full caption and seed 0.
    pub fn new(
        shape: Shape,
        colour: Colour,
        size: Size,
        position: Position,
        background: Colour,
    ) -> Self {
        let caption =
            format!("a {size} {colour} {shape} at the {position} of a {background} background");
        Scene { shape, colour, size, position, background, caption, seed: 0 }
    }
}
