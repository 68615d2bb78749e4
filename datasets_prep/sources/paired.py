"""Sources whose samples are a few files of one name: listed by a pattern and a table of reasons."""

import re
from collections.abc import Sequence
from typing import ClassVar

from datasets_prep.sources.base import Listing, Rejection, Source
from datasets_prep.sources.files_by_sample import collect_files
from datasets_prep.sources.samples import Sample
from datasets_prep.storage.folder import Folder


class PairedSource(Source):
    """A dataset in which the files of a sample share its name.

    Attributes:
        pattern: matches a whole path; its last matched group is named for the role of the file (`image`,
            `depth`, …) and holds the sample's name.
        scope: groups of the pattern within which that name is unique, such as a scene or a split; what they
            match is joined by slashes.
        digits: if not 0, names are numbers of at most this many digits, however they are padded.
        missing: each role that a sample needs, with the reason for leaving out a sample without it; `{scope}`
            and `{name}` are filled in.
        repeated: reason for leaving out a second file of one role; `{first}` is filled in.
        only_split: the official split of all samples, or None.
    """

    pattern: ClassVar[re.Pattern[str]]
    scope: ClassVar[tuple[str, ...]] = ()
    digits: ClassVar[int] = 0
    missing: ClassVar[Sequence[tuple[str, str]]]
    repeated: ClassVar[str] = "second copy of {first}"
    only_split: ClassVar[str | None] = None

    def list(self, root: Folder) -> Listing:
        """Group the files of `root` by sample; see `Source.list`."""
        listing = Listing()
        found, copies = collect_files(root.files(), self.pattern, self.scope, self.digits)
        listing.rejected += [Rejection(copy, self.repeated.format(first=first)) for copy, first in copies]
        for (scope, name), files in found.items():
            self.add(listing, scope, str(int(name)) if self.digits else name, files)
        for path in root.files():  # maybe millions: counted, not kept
            if not (self.pattern.fullmatch(path) or self.split_of_list(path)):
                listing.unread = listing.unread[0] + 1, listing.unread[1] or path
        return listing

    def add(self, listing: Listing, scope: str, name: str, files: dict[str, str]) -> None:
        """Add a sample to `listing`, or its first file to the rejections if one is missing.

        `scope` is what the groups of that name match, `name` the sample's (a number without padding where
        `digits` is set), `files` map roles to paths.
        """
        if lacking := [reason for role, reason in self.missing if role not in files]:
            present = next(iter(files.values()))
            listing.rejected.append(Rejection(present, self.reason(scope, name, lacking)))
        else:
            listing.samples.append(self.sample(scope, name, files))

    def reason(self, scope: str, name: str, lacking: Sequence[str]) -> str:
        """Why the sample `name` in `scope` is left out; `lacking` are the reasons that apply."""
        return lacking[0].format(scope=scope, name=name)

    def sample(self, scope: str, name: str, files: dict[str, str]) -> Sample:
        """The sample `name` in `scope` with `files` (role → path); the first part of its id is its group."""
        sample_id = f"{scope}/{name}" if scope else name
        return Sample(sample_id, files, group=sample_id.split("/")[0], split=self.only_split)
