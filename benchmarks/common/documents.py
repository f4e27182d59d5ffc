"""Documents with generated parts, each between two marks in comments."""

import re


def with_part(text, name, part):
    """Replaces the part between <!-- name --> and <!-- end of name -->.

    Args:
      text: of the document.
      name: of the part; each of its marks is on a line of its own.
      part: the new content; ends with a newline.

    Raises:
      ValueError: if the document has no such place, or several.
    """
    name = re.escape(name)
    place = re.compile(
        rf"(?<=<!-- {name} -->\n).*?(?=<!-- end of {name} -->)", re.S
    )
    text, count = place.subn(lambda _: part, text)
    if count != 1:
        raise ValueError(f"There are {count} places for {name}, not one.")
    return text
