"""The datasets that can be ingested, by name; one file each."""

from datasets_prep.sources.ade20k import ADE20K
from datasets_prep.sources.apolloscape import ApolloScape
from datasets_prep.sources.base import Source
from datasets_prep.sources.blendedmvs import BlendedMVS
from datasets_prep.sources.diml import DIML, DIMLOutdoor
from datasets_prep.sources.diw import DIW
from datasets_prep.sources.eth3d import ETH3D
from datasets_prep.sources.folder import FolderSource
from datasets_prep.sources.hrwsi import HRWSI
from datasets_prep.sources.irs import IRS
from datasets_prep.sources.kitti import KITTI, KITTI161
from datasets_prep.sources.megadepth import MegaDepth
from datasets_prep.sources.movies import Movies
from datasets_prep.sources.nyuv2 import NYUv2
from datasets_prep.sources.nyuv2_labelled import NYUv2Labelled
from datasets_prep.sources.pascal_context import PascalContext59, PascalContext60
from datasets_prep.sources.redweb import ReDWeb
from datasets_prep.sources.sintel import Sintel
from datasets_prep.sources.tartanair import TartanAir
from datasets_prep.sources.tum import TUM
from datasets_prep.sources.wsvd import WSVD

_MIX_5 = (ReDWeb(), DIML(), DIMLOutdoor(), Movies(), MegaDepth(), WSVD())
_MORE_OF_MIX_6 = (TartanAir(), HRWSI(), ApolloScape(), BlendedMVS(), IRS())
_EVALUATION = (DIW(), ETH3D(), KITTI(), KITTI161(), NYUv2(), NYUv2Labelled(), Sintel(), TUM())
_SEGMENTATION = (ADE20K(), PascalContext59(), PascalContext60())
_OWN = (FolderSource(),)

SOURCES: dict[str, Source] = {
    source.name: source for source in (*_MIX_5, *_MORE_OF_MIX_6, *_EVALUATION, *_SEGMENTATION, *_OWN)
}
