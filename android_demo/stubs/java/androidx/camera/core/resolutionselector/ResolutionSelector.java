// A signature, not the library: written by hand to compile against where the library cannot be had. See ../README.md.
package androidx.camera.core.resolutionselector;

import androidx.annotation.NonNull;

public final class ResolutionSelector {
    private ResolutionSelector() {}

    public static final class Builder {
        @NonNull
        public Builder setAspectRatioStrategy(@NonNull AspectRatioStrategy aspectRatioStrategy) {
            throw new UnsupportedOperationException();
        }

        @NonNull
        public Builder setResolutionStrategy(@NonNull ResolutionStrategy resolutionStrategy) {
            throw new UnsupportedOperationException();
        }

        @NonNull
        public ResolutionSelector build() {
            throw new UnsupportedOperationException();
        }
    }
}
