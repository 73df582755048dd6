"""From official archives, or folders of images, to lists that conversion takes."""
