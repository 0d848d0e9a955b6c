"""What pictures, pages, viewers and exports share: colours of maps, and thinned point clouds."""
