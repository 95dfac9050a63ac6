"""Examples in pages of the documentation."""


def example(page, begin):
    """The indented block that begins with a line."""
    lines = page.split("\n")
    at = lines.index("    " + begin)
    block = []
    for line in lines[at:]:
        if line and not line.startswith("    "):
            break
        block.append(line[4:])
    return "\n".join(block)
