"""Raw genomic files in, one verified dataset directory out."""
