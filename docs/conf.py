"""The documentation: `make docs` builds it, warnings are errors."""

from throughtime import __version__

project = "throughtime"
version = release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = f"throughtime {version}"
html_show_copyright = False
exclude_patterns = ["conf.py"]

myst_enable_extensions = ["deflist", "dollarmath"]
myst_heading_anchors = 3

default_role = "code"  # `name` in a docstring is code
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # `Attributes:` name them, their own entries describe them
