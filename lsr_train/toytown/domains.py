"""The two worlds that Toytown is seen in: what differs between them, and nothing else.

Both obey the same grammar (`street`). `GAME` is flat, clean and saturated under one sun; `CAMERA` has muted colours,
textures, haze, a colour cast, an exposure, blur and noise, stands higher and meets other things more often. Frozen: a
change here changes every figure that was ever measured on Toytown.
"""

from dataclasses import dataclass
from typing import Final

__all__ = ["DOMAINS", "Domain", "Palette", "Sensor"]

Range = tuple[float, float]
Colors = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Palette:
    """Colours as `#rrggbb`; where there are several, each thing picks one.

    Args:
        spread: each thing's colour moves by up to so many levels a channel.
        brightness: each thing's colour is multiplied by 1 ± this.
    """

    asphalt: Colors
    marking: Colors
    kerb: Colors
    sidewalk: Colors
    grass: Colors
    facades: Colors
    trims: Colors
    roofs: Colors
    glass: Colors
    doors: Colors
    walls: Colors
    fences: Colors
    poles: Colors
    leaves: Colors
    trunks: Colors
    paints: Colors
    buses: Colors
    trains: Colors
    loads: Colors
    clothes: Colors
    trousers: Colors
    skins: Colors
    hairs: Colors
    frames: Colors
    sign_rims: Colors
    light_boxes: Colors
    sky_top: Colors
    sky_bottom: Colors
    clouds: Colors
    spread: float
    brightness: float


@dataclass(frozen=True, kw_only=True)
class Sensor:
    """What happens between the scene and the frame. Ranges are drawn once a scene.

    Args:
        texture: strength of the surfaces' textures, 0..1.
        haze: extinction, 1/m.
        cast: each channel's gain is 1 ± this.
        exposure: gain of the whole frame.
        contrast: factor about mid grey.
        saturation: factor of the distance from grey.
        lift: levels added to black (flare).
        vignette: loss of light in the corners, 0..1.
        blur: standard deviation in pixels at a width of 256; it grows with the width.
        noise: standard deviation of the noise in levels, at mid grey.
        cloud_softness: 0 paints clouds with hard edges, 1 as mist.
    """

    texture: Range
    haze: Range
    cast: float
    exposure: Range
    contrast: Range
    saturation: Range
    lift: Range
    vignette: Range
    blur: Range
    noise: Range
    cloud_softness: float


@dataclass(frozen=True, kw_only=True)
class Domain:
    """One of the two worlds.

    Args:
        name: what `render` calls it.
        index: enters the seed, so that no scene of one domain is a scene of the other.
        palette: colours of things.
        sensor: from the scene to the frame.
        height: of the camera over the road, metres.
        pitch: downward, radians.
        focal: focal length as a share of the width.
        overcast: probability of a sky without sun.
        ambient: light that reaches every face.
        diffuse: light of the sun on top, when it shines.
        shadow: what a sun shadow takes away, 0..1.
        frontage: weights of what lines the street, by name.
        tree_row: probability that a side of the street has a row of trees.
        parking: probability that a side has parked cars.
        traffic: vehicles per 100 m of a lane.
        vehicles: weights of kinds of moving vehicles.
        walkers: people per 100 m of a pavement.
        riders: riders per 100 m of a lane.
        parked_bikes: bicycles and motorcycles per 100 m of a pavement.
        tram: probability of a tram beside or on the street.
        crossing: probability that a block starts with a cross street.
        signs: signs per 100 m of a pavement.
    """

    name: str
    index: int
    palette: Palette
    sensor: Sensor
    height: Range
    pitch: Range
    focal: Range
    overcast: float
    ambient: Range
    diffuse: Range
    shadow: Range
    frontage: dict[str, float]
    tree_row: float
    parking: float
    traffic: float
    vehicles: dict[str, float]
    walkers: float
    riders: float
    parked_bikes: float
    tram: float
    crossing: float
    signs: float


GAME: Final = Domain(
    name="game",
    index=0,
    palette=Palette(
        asphalt=("#5a5a66", "#62626e", "#54545f"),
        marking=("#ffffff",),
        kerb=("#d8d4cc",),
        sidewalk=("#c4b8a8", "#b9b3ad", "#ccb79c"),
        grass=("#58b83a", "#66c040", "#4da834"),
        facades=("#d96a4a", "#e8c35a", "#5f8fc9", "#e9dcc0", "#c85a7a", "#7fb58a", "#b98a5a", "#d8d8e0", "#9a78b8"),
        trims=("#ffffff", "#f4e6c8", "#5a3a2a", "#e0e0e8"),
        roofs=("#a83a2a", "#7a3a30", "#4a4a5a", "#8a5a3a"),
        glass=("#2a4a72", "#3a5a82", "#22385a", "#7ab0e0"),
        doors=("#7a2a1a", "#1a5a3a", "#2a3a7a", "#6a4a2a"),
        walls=("#a89a8a", "#b8b0a4", "#9a7a62", "#c8b898"),
        fences=("#8a5a2a", "#e8e8e8", "#3a6a3a", "#a8a8b0"),
        poles=("#4a4e56", "#5a5e66", "#3e5a4a"),
        leaves=("#2f9a2f", "#3aa83a", "#46b02a", "#2a8a3a"),
        trunks=("#7a4a22",),
        paints=("#e02a2a", "#2a5ae0", "#f0d020", "#f4f4f4", "#22222a", "#2ab05a", "#f08020", "#9a2ac0", "#c0c4cc"),
        buses=("#f0b020", "#d82a2a", "#2a9ad8"),
        trains=("#e8e8f0", "#d82a3a", "#3aa04a"),
        loads=("#f4f4f4", "#2a6ad0", "#e06a2a", "#3aa060"),
        clothes=("#e83a3a", "#3a6ae8", "#f0c83a", "#3ab06a", "#b03ab0", "#f4f4f4", "#f08a3a", "#3ac0c8"),
        trousers=("#2a3a6a", "#3a3a42", "#6a5a42", "#22222a"),
        skins=("#f0c09a", "#d89a6a", "#8a5a3a"),
        hairs=("#3a2212", "#e0b04a", "#1a1a1a", "#9a4a1a"),
        frames=("#e02a2a", "#2a6ae0", "#22a04a", "#f0d020", "#f0f0f0"),
        sign_rims=("#d81a1a", "#1a4ad8"),
        light_boxes=("#1e2024",),
        sky_top=("#2a7ae0", "#3a86e8"),
        sky_bottom=("#a8d4f8", "#b8dcfa"),
        clouds=("#ffffff",),
        spread=6,
        brightness=0.06,
    ),
    sensor=Sensor(
        texture=(0.0, 0.0),
        haze=(0.0008, 0.002),
        cast=0.0,
        exposure=(1.0, 1.0),
        contrast=(1.0, 1.0),
        saturation=(1.0, 1.0),
        lift=(0.0, 0.0),
        vignette=(0.0, 0.0),
        blur=(0.0, 0.0),
        noise=(0.0, 0.0),
        cloud_softness=0.0,
    ),
    height=(1.3, 1.6),
    pitch=(-0.01, 0.04),
    focal=(0.72, 0.82),
    overcast=0.0,
    ambient=(0.62, 0.68),
    diffuse=(0.42, 0.5),
    shadow=(0.42, 0.5),
    frontage={"building": 5.0, "wall": 2.0, "fence": 2.2, "hedge": 0.8, "open": 1.5},
    tree_row=0.45,
    parking=0.4,
    traffic=3.2,
    vehicles={"car": 6, "truck": 1.5, "bus": 1.3},
    walkers=8,
    riders=3.2,
    parked_bikes=6,
    tram=0.4,
    crossing=0.45,
    signs=5,
)

CAMERA: Final = Domain(
    name="camera",
    index=1,
    palette=Palette(
        asphalt=("#807e7c", "#8a8884", "#76767a", "#908c88"),
        marking=("#dcdad2", "#e4e0d4"),
        kerb=("#b0aca2",),
        sidewalk=("#a88a74", "#a0806e", "#b08c7a", "#9e8468"),
        grass=("#7c7a3c", "#8a8444", "#6e7238", "#948a48"),
        facades=("#b4a68e", "#c0b29c", "#a39a8a", "#cfc4ac", "#a8a49c", "#bcae98", "#988f80", "#b8b4aa", "#d6ccb8"),
        trims=("#d8d4cc", "#b0a898", "#6a6058", "#e4e0d8"),
        roofs=("#5e4a42", "#6e5a50", "#4a4a4c", "#7a5a4c"),
        glass=("#3c444a", "#4a5258", "#2e3438", "#8a949a"),
        doors=("#4a3a30", "#3a4440", "#3c3e48", "#5a4c3e"),
        walls=("#7a4c40", "#86584a", "#6e4840", "#8a6250"),
        fences=("#4a5a54", "#3c4a46", "#5c6a60", "#34423c"),
        poles=("#5c6062", "#74787a", "#484c4c"),
        leaves=("#5a6428", "#6e6a28", "#7c6a2a", "#4e5c2c", "#86662c"),
        trunks=("#4e4236", "#5c5044"),
        paints=("#d4d4d2", "#b0b2b4", "#3a3c40", "#7a7e82", "#8a2e2a", "#2e4468", "#e4e4e0", "#5a5248", "#22242a"),
        buses=("#c8b070", "#a03a34", "#5a7a98"),
        trains=("#5a8a70", "#4a7a62", "#cdd2c8"),
        loads=("#dcdad4", "#40608c", "#a8683c", "#ccc8bc"),
        clothes=("#3a3c46", "#54484a", "#7a4a44", "#44546a", "#8a8478", "#2a2a2e", "#6a6a5a", "#a8a49c"),
        trousers=("#2c3240", "#34343a", "#5a5248", "#26262a"),
        skins=("#c89a80", "#a87858", "#704a38"),
        hairs=("#2e241e", "#a08458", "#1e1c1c", "#6a4430"),
        frames=("#3a3a3e", "#7a2e2a", "#34486a", "#8a8a8a"),
        sign_rims=("#a83030", "#30508e"),
        light_boxes=("#26282a", "#30322e"),
        sky_top=("#9fb4c6", "#aab6c0", "#b9c2c8", "#8fa9c2"),
        sky_bottom=("#e0dcd2", "#e4ded0", "#dcdad4"),
        clouds=("#e6e8e8", "#c4c8cc", "#f0f0ee"),
        spread=8,
        brightness=0.1,
    ),
    sensor=Sensor(
        texture=(0.6, 1.0),
        haze=(0.0015, 0.0045),
        cast=0.045,
        exposure=(0.85, 1.1),
        contrast=(0.94, 1.06),
        saturation=(0.9, 1.05),
        lift=(4, 14),
        vignette=(0.05, 0.25),
        blur=(0.25, 0.45),
        noise=(1.5, 4.0),
        cloud_softness=1.0,
    ),
    height=(1.5, 2.0),
    pitch=(0.02, 0.08),
    focal=(0.76, 0.9),
    overcast=0.55,
    ambient=(0.6, 0.75),
    diffuse=(0.3, 0.42),
    shadow=(0.3, 0.42),
    frontage={"building": 5.0, "wall": 2.2, "fence": 2.3, "hedge": 1.0, "open": 1.4},
    tree_row=0.6,
    parking=0.5,
    traffic=2.8,
    vehicles={"car": 6.5, "truck": 1.9, "bus": 1.2},
    walkers=9,
    riders=3.2,
    parked_bikes=7,
    tram=0.5,
    crossing=0.45,
    signs=5,
)

DOMAINS: Final = {"game": GAME, "camera": CAMERA}
"""The two domains by name."""
